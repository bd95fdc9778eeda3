"""Names of tensors: translates those of released checkpoints into ours.

The names on the left are facts about the files that the authors' trainer writes; each rule renames one
part of a name, and the rules together are a bijection on the tensors that the network uses.
"""

from __future__ import annotations

import re

_MODULES = [
    (r"patch_embed\.proj\.", "stem."),
    (r"task_prompt\.CondNet\.", "prompt.features."),
    (r"task_prompt\.lastOut\.", "prompt.mixer."),
    (r"task_prompt\.dictionary$", "prompt.basic_prompts"),
    (r"stpg_g_mese(\d)\.", r"pixel_experts\1."),
    (r"encoder_level(\d)\.", r"encoder\1."),
    (r"decoder_level(\d)\.", r"decoder\1."),
    (r"down1_2\.body\.0\.", "down1.narrow."),
    (r"down2_3\.body\.0\.", "down2.narrow."),
    (r"down3_4\.body\.0\.", "down3.narrow."),
    (r"up4_3\.body\.0\.", "up3.widen."),
    (r"up3_2\.body\.0\.", "up2.widen."),
    (r"up2_1\.body\.0\.", "up1.widen."),
    (r"reduce_chan_level(\d)\.", r"reduce\1."),
    (r"block1\.", "frequency4."),
    (r"block2\.", "frequency3."),
    (r"block3\.", "frequency2."),
    (r"fe_mee1\.", "fd_mee3."),
    (r"fe_mee2\.", "fd_mee2."),
    (r"fe_mee3\.", "fd_mee1."),
]

_PARTS = {
    r"(pixel_experts\d)\.": [
        (r"\.fc\.", ".router.prompt_to_channels."),
        (r"\.model\.w_g$", ".router.scores"),
        (r"\.model\.w_n$", ".router.noise"),
        (r"\.model\.el\.(\d+)\.fc1\.", r".experts.\1.expand."),
        (r"\.model\.el\.(\d+)\.fc2\.", r".experts.\1.project."),
    ],
    r"(encoder\d|decoder\d|latent|refinement)\.": [
        (r"\.norm1\.body\.", ".attention_norm."),
        (r"\.norm2\.body\.", ".feed_forward_norm."),
        (r"\.attn\.qkv_dwconv\.", ".attention.qkv_depthwise."),
        (r"\.attn\.project_out\.", ".attention.project."),
        (r"\.attn\.", ".attention."),
        (r"\.ffn\.project_in\.", ".feed_forward.expand."),
        (r"\.ffn\.dwconv\.", ".feed_forward.depthwise."),
        (r"\.ffn\.project_out\.", ".feed_forward.project."),
    ],
    r"frequency\d\.": [
        (r"\.param_alpha$", ".joined_gain"),
        (r"\.param_beta$", ".kept_gain"),
        (r"\.aux_conv\.", ".lift."),
        (r"\.rate_adaptive_conv\.", ".cutoff."),
        (r"\.cross_layer_low\.", ".high_attention."),
        (r"\.cross_layer_high\.", ".low_attention."),
        (r"\.cross_layer_agg\.", ".join_attention."),
        (r"\.q_dwconv\.", ".q_depthwise."),
        (r"\.kv_dwconv\.", ".kv_depthwise."),
        (r"\.project_out\.", ".project."),
        (r"\.freq_refinement\.modulate1\.spatial\.", ".modulate.where."),
        (r"\.freq_refinement\.modulate2\.squential\.", ".modulate.which."),
        (r"\.freq_refinement\.conv\.", ".modulate.project."),
    ],
    r"fd_mee\d\.": [
        (r"\.spilit\.conv\.", ".decompose.predict."),
        (r"\.spilit\.bn\.", ".decompose.norm."),
        (r"\.(high|low)_block\.", r".\1."),
        (r"\.norm_1\.", ".norm."),
        (r"\.block\.conv_1\.", ".expand."),
        (r"\.block\.agg_conv\.0\.", ".aggregate."),
        (r"\.block\.conv_2\.0\.conv\.0\.", ".across."),
        (r"\.block\.conv_2\.0\.conv\.1\.", ".down."),
        (r"\.block\.conv\.0\.", ".context_depthwise."),
        (r"\.block\.conv\.1\.", ".context_project."),
        (r"\.block\.moe_layer\.wet\.body\.2\.", ".experts.scores."),
        (r"\.block\.moe_layer\.experts\.(\d+)\.conv_1\.", r".experts.experts.\1.narrow_features."),
        (r"\.block\.moe_layer\.experts\.(\d+)\.conv_2\.", r".experts.experts.\1.narrow_context."),
        (r"\.block\.moe_layer\.experts\.(\d+)\.conv_3\.", r".experts.experts.\1.widen."),
        (r"\.block\.proj\.", ".project."),
        (r"\.proj\.", ".project."),
    ],
}

_STORED_BUT_UNUSED = re.compile(
    r"block\d\.(initial_conv|score_generator)\."
    r"|stpg_g_mese\d\.model\.(mean|std)$"
    r"|fe_mee\d\.spilit\.lamb_[lh]$"
    r"|fe_mee\d\.(high|low)_block\.norm_2\."
)


def is_reference_name(name: str) -> bool:
    """Tells a name of the authors' code (without a ``net.`` prefix) from one of ours."""
    return _rename_module(name) != name or _rename_parts(name) != name


def is_stored_but_unused(name: str) -> bool:
    """Tells whether released checkpoints hold this tensor although their network never reads it."""
    return _STORED_BUT_UNUSED.match(name) is not None


def to_our_name(name: str) -> str:
    """Our name of a tensor of a released checkpoint; a name that no rule knows comes back as it is."""
    return _rename_parts(_rename_module(name))


def _rename_module(name: str) -> str:
    for pattern, ours in _MODULES:
        renamed, count = re.subn("^" + pattern, ours, name)
        if count:
            return renamed
    return name


def _rename_parts(name: str) -> str:
    for module, parts in _PARTS.items():
        if re.match(module, name):
            for pattern, ours in parts:
                name = re.sub(pattern, ours, name, count=1)
    return name
