"""``python -m mmdcn.new``: a config that trains a recipe of mmdcn on your own images."""
