# The official `nsmx`: the points of an attention are weighted without a softmax.
_base_ = "./mask2former_flash-internimage-s_160k_ade20k-640x640.py"

model = dict(decode_head=dict(normalize_attention=False))
