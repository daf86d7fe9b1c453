"""Multi-scale deformable attention whose weights are not normalised; this module needs MMCV."""

from __future__ import annotations

from mmcv.ops import MultiScaleDeformableAttention
from mmcv.ops.multi_scale_deform_attn import (
    MultiScaleDeformableAttnFunction,
    multi_scale_deformable_attn_pytorch,
)
from torch import Tensor


class UnnormalizedDeformableAttention(MultiScaleDeformableAttention):
    """MMCV's attention without the softmax over the weights of a query's points.

    What DCNv4 is to DCNv3: the weights may have any sign and sum, `Efficient Deformable ConvNets
    <https://arxiv.org/abs/2401.06197>`_ (Xiong et al., 2024). State-dict keys and arguments are
    those of MMCV's module.
    """

    def forward(
        self,
        query: Tensor,
        key: Tensor | None = None,
        value: Tensor | None = None,
        identity: Tensor | None = None,
        query_pos: Tensor | None = None,
        key_padding_mask: Tensor | None = None,
        reference_points: Tensor | None = None,
        spatial_shapes: Tensor | None = None,
        level_start_index: Tensor | None = None,
        **kwargs,
    ) -> Tensor:
        """Attend to points around reference points.

        Args:
            query: ``(N, Q, C)``, or ``(Q, N, C)`` where the module is not `batch_first`.
            key: Not used.
            value: Pixels of all levels ``(N, S, C)``, or ``(S, N, C)``; the query by default.
            identity: What the result is added to; the query by default.
            query_pos: Added to the query.
            key_padding_mask: ``(N, S)``, True for pixels that do not count.
            reference_points: ``(N, Q, levels, 2)``, (x, y) from 0 to 1.
            spatial_shapes: ``(levels, 2)``, (height, width) of each level.
            level_start_index: ``(levels,)``, where each of them begins in `value`.

        Returns:
            A tensor like the query.
        """
        value = query if value is None else value
        identity = query if identity is None else identity
        query = query if query_pos is None else query + query_pos
        if not self.batch_first:
            query, value = query.transpose(0, 1), value.transpose(0, 1)
        value = self.value_proj(value)
        if key_padding_mask is not None:
            value = value.masked_fill(key_padding_mask[..., None], 0)
        value = value.unflatten(-1, (self.num_heads, -1))
        points = (self.num_heads, self.num_levels, self.num_points)
        offsets = self.sampling_offsets(query).unflatten(-1, (*points, 2))
        weights = self.attention_weights(query).unflatten(-1, points)
        # offsets count in pixels of their level
        sizes = spatial_shapes.flip(-1)[:, None]
        locations = reference_points[:, :, None, :, None] + offsets / sizes
        if value.is_cuda:
            output = MultiScaleDeformableAttnFunction.apply(
                value, spatial_shapes, level_start_index, locations, weights, self.im2col_step
            )
        else:
            output = multi_scale_deformable_attn_pytorch(value, spatial_shapes, locations, weights)
        output = self.output_proj(output)
        if not self.batch_first:
            output = output.transpose(0, 1)
        return self.dropout(output) + identity
