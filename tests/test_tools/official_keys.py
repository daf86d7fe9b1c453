"""Keys and shapes of the official repositories' heads with narrow layers, from their rules."""

WIDTHS = (16, 32, 64, 128)  # channels of the four levels of a narrow backbone


def official_dino():
    """(official key, MMDetection 3.x key, shape) of DINO's transformer with two layers each."""
    t = "bbox_head.transformer."
    linear = lambda o, i: [("weight", (o, i)), ("bias", (o,))]  # noqa: E731
    norm = [("weight", (256,)), ("bias", (256,))]
    keys = [(f"{t}level_embeds", "level_embed", (4, 256))]

    def add(old, new, leaves):
        keys.extend((f"{old}.{leaf}", f"{new}.{leaf}", shape) for leaf, shape in leaves)

    add(f"{t}enc_output", "memory_trans_fc", linear(256, 256))
    add(f"{t}enc_output_norm", "memory_trans_norm", norm)
    add(f"{t}query_embed", "query_embedding", [("weight", (30, 256))])
    add("bbox_head.label_embedding", "dn_query_generator.label_embedding", [("weight", (80, 256))])
    for coder, attention in (("encoder", "self_attn"), ("decoder", "cross_attn")):
        for i in range(2):
            old, new = f"{t}{coder}.layers.{i}", f"{coder}.layers.{i}"
            number = 0 if coder == "encoder" else 1
            for leaf, size in (("sampling_offsets", 256), ("attention_weights", 128),
                               ("value_proj", 256), ("output_proj", 256)):  # fmt: skip
                add(f"{old}.attentions.{number}.{leaf}", f"{new}.{attention}.{leaf}",
                    linear(size, 256))  # fmt: skip
            for leaf, (o, n) in (("0.0", (2048, 256)), ("1", (256, 2048))):
                add(f"{old}.ffns.0.layers.{leaf}", f"{new}.ffn.layers.{leaf}", linear(o, n))
            for k in range(2 + number):
                add(f"{old}.norms.{k}", f"{new}.norms.{k}", norm)
            if coder == "decoder":
                attn = f"{old}.attentions.0.attn", f"{new}.self_attn.attn"
                add(*attn, [("in_proj_weight", (768, 256)), ("in_proj_bias", (768,))])
                add(f"{attn[0]}.out_proj", f"{attn[1]}.out_proj", linear(256, 256))
    add(f"{t}decoder.ref_point_head.0", "decoder.ref_point_head.layers.0", linear(256, 512))
    add(f"{t}decoder.ref_point_head.2", "decoder.ref_point_head.layers.1", linear(256, 256))
    add(f"{t}decoder.norm", "decoder.norm", norm)
    for i in range(3):
        key = f"bbox_head.cls_branches.{i}"
        add(key, key, linear(80, 256))
        for k, size in ((0, 256), (2, 256), (4, 4)):
            key = f"bbox_head.reg_branches.{i}.{k}"
            add(key, key, linear(size, 256))
    return keys


def official_upernet():
    """(key, shape) of UPerNet's heads with 24 and 16 channels, as MMSegmentation 0.x has them."""
    norm = dict(weight=1, bias=1, running_mean=1, running_var=1)

    def conv_module(key, out, into, size):
        yield f"{key}.conv.weight", (out, into, size, size)
        yield from ((f"{key}.bn.{leaf}", (out,)) for leaf in norm)
        yield f"{key}.bn.num_batches_tracked", ()

    head, auxiliary = "decode_head", "auxiliary_head"
    for i in range(4):
        yield from conv_module(f"{head}.psp_modules.{i}.1", 24, 128, 1)
    yield from conv_module(f"{head}.bottleneck", 24, 128 + 4 * 24, 3)
    for i in range(3):
        yield from conv_module(f"{head}.lateral_convs.{i}", 24, WIDTHS[i], 1)
        yield from conv_module(f"{head}.fpn_convs.{i}", 24, 24, 3)
    yield from conv_module(f"{head}.fpn_bottleneck", 24, 4 * 24, 3)
    yield from conv_module(f"{auxiliary}.convs.0", 16, 64, 3)
    for key, width in ((head, 24), (auxiliary, 16)):
        yield f"{key}.conv_seg.weight", (150, width, 1, 1)
        yield f"{key}.conv_seg.bias", (150,)


def official_mask2former(queries=20, width=32, heads=4, ffn=48):
    """(official key, MMDetection 3.x key, shape) of Mask2Former's head with narrow layers."""
    linear = lambda o, i: [("weight", (o, i)), ("bias", (o,))]  # noqa: E731
    norm = [("weight", (width,)), ("bias", (width,))]
    keys = []

    def add(old, leaves, new=None):
        keys.extend(
            (f"decode_head.{old}.{leaf}", f"decode_head.{new or old}.{leaf}", shape)
            for leaf, shape in leaves
        )

    pixel = "pixel_decoder"
    for i, channels in enumerate(reversed(WIDTHS[1:])):
        add(f"{pixel}.input_convs.{i}.conv", [("weight", (width, channels, 1, 1)), norm[1]])
        add(f"{pixel}.input_convs.{i}.gn", norm)
    for name, channels, size in (("lateral_convs", WIDTHS[0], 1), ("output_convs", width, 3)):
        add(f"{pixel}.{name}.0.conv", [("weight", (width, channels, size, size))])
        add(f"{pixel}.{name}.0.gn", norm)
    add(f"{pixel}.mask_feature", [("weight", (width, width, 1, 1)), norm[1]])
    add(f"{pixel}.level_encoding", [("weight", (3, width))])
    points = 3 * 4 * heads  # levels, points
    for i in range(6):
        old = f"{pixel}.encoder.layers.{i}"
        for leaf, out in (("sampling_offsets", 2 * points), ("attention_weights", points),
                          ("value_proj", width), ("output_proj", width)):  # fmt: skip
            add(f"{old}.attentions.0.{leaf}", linear(out, width), f"{old}.self_attn.{leaf}")
        for leaf, o, n in (("0.0", ffn, width), ("1", width, ffn)):
            add(f"{old}.ffns.0.layers.{leaf}", linear(o, n), f"{old}.ffn.layers.{leaf}")
        for k in range(2):
            add(f"{old}.norms.{k}", norm)
    for i in range(9):
        old = f"transformer_decoder.layers.{i}"
        # the first attention looks at the image, the second at the other queries
        for k, name in enumerate(("cross_attn", "self_attn")):
            attention = f"{old}.attentions.{k}.attn", f"{old}.{name}.attn"
            packed = [("in_proj_weight", (3 * width, width)), ("in_proj_bias", (3 * width,))]
            add(attention[0], packed, attention[1])
            add(f"{attention[0]}.out_proj", linear(width, width), f"{attention[1]}.out_proj")
        for leaf, o, n in (("0.0", ffn, width), ("1", width, ffn)):
            add(f"{old}.ffns.0.layers.{leaf}", linear(o, n), f"{old}.ffn.layers.{leaf}")
        for k in range(3):
            add(f"{old}.norms.{k}", norm)
    add("transformer_decoder.post_norm", norm)
    for name, rows in (("query_embed", queries), ("query_feat", queries), ("level_embed", 3)):
        add(name, [("weight", (rows, width))])
    add("cls_embed", linear(151, width))
    for k in (0, 2, 4):
        add(f"mask_embed.{k}", linear(width, width))
    return keys
