"""Parts of the training loop for OpenMMLab configs; importing this module registers them."""
