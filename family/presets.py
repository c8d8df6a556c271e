"""The presets of the MusicVAE family: melodies, drums, grooves and trios, in the published sizes and in small ones for two cores.

Differences from the defaults, keyed section.option. What is published is from Roberts et al. 2018 (arXiv:1803.05428) and Gillick et al.
2019 (arXiv:1905.06118); the runs of 4-bar drums and melodies are those of people who trained the originals on Groove and on piano. Their
LSTMs see z and the step before and nothing else; small ones are told the place in the bar besides, most hand every step's summary to z and
read a plan off z for every step, and those of grooves learn how far loudness and timing spread. No code but what puts tables together.
"""

from __future__ import annotations

from typing import Any

Preset = dict[str, Any]
# fmt: off

# ---------------------------------------------------------------- parts

PUBLISHED: Preset = {
    "dataset.holdout": 0.1, "songs.songs": True, "model.cell": "lstm",
    "model.position_size": 0, "model.summary_size": 0, "model.plan_size": 0,
    "train_vae.init_from": "none", "train_vae.steps": 200_000, "train_vae.batch_size": 512, "train_vae.lr_decay": 0.9999,
    "train_vae.lr_final": 0.01, "train_vae.warmup": 0, "train_vae.beta": 0.2, "train_vae.beta_anneal": 0, "train_vae.dropout": 0.0,
    "train_vae.word_dropout": 0.0, "train_vae.patience": 0, "train_vae.precision": "auto",
    "train_run.eval_interval": 500, "train_run.save_interval": 500, "sample.temperature": 0.5,
}
SMALL: Preset = {
    "dataset.holdout": 0.1, "songs.songs": True, "model.cell": "lstm", "model.summary_size": 0, "model.plan_size": 0,
    "train_vae.init_from": "none", "train_vae.patience": 0, "train_vae.lr": 2e-3, "train_vae.precision": "auto",
    "train_run.eval_interval": 500, "train_run.save_interval": 500, "train_run.log_interval": 100, "sample.temperature": 0.5,
}


def sizes(encoder: int, encoder_layers: int, decoder: int, decoder_layers: int, z: int, conductor: int = 0) -> Preset:
    """Hidden units and layers, z, and with a conductor its hidden units."""
    made = {"encoder_size": encoder, "encoder_layers": encoder_layers, "decoder_size": decoder, "decoder_layers": decoder_layers}
    made |= {"z_size": z, **({"conductor_size": conductor} if conductor else {})}
    return {f"model.{name}": value for name, value in made.items()}


MELODY: Preset = {
    "tokenizer.policy": "highest", "dataset.low": 21, "dataset.high": 108, "dataset.transpose": 5, "dataset.transpose_low": 21,
    "dataset.transpose_high": 108,
}
DRUMS: Preset = {"tokenizer.representation": "drums", "songs.kit": "roland", "dataset.transpose": 0}
GROOVE: Preset = {"tokenizer.representation": "groove", "songs.kit": "roland", "dataset.transpose": 0}
TRIO: Preset = MELODY | {"tokenizer.representation": "trio", "songs.song_pattern": "__(.*)", "songs.min_notes_per_bar": 1.0}
SAMPLED: Preset = {"train_vae.scheduled_sampling": 1.0, "train_vae.sampling_rate": 1000.0}
HIER_4: Preset = {"model.level_lengths": "8,8"}
HIER_16: Preset = {"model.level_lengths": "16,16"}
BARS_2: Preset = {"songs.hop": 1}
BARS_4: Preset = {"songs.hop": 1, "tokenizer.bars": 4}
BARS_16: Preset = {"songs.hop": 1, "tokenizer.bars": 16}
FREE_48: Preset = {"train_vae.free_bits": 48.0}
FREE_256: Preset = {"train_vae.free_bits": 256.0}
ROCK: Preset = {"songs.genre": "rock", "songs.beat_type": "beat"}
FEEDBACK: Preset = {"model.segment_feedback": True}  # autoregression across segments

# ---------------------------------------------------------------- families

MEL_2 = PUBLISHED | MELODY | BARS_2 | SAMPLED | {"train_vae.beta_rate": 0.99999}
MEL_2_SMALL: Preset = {
    "model.plan_size": 32, "model.summary_size": 16, "train_vae.lr": 1e-3, "train_vae.steps": 10_500, "train_vae.beta": 0.5,
    "train_vae.beta_anneal": 2000, "train_vae.word_dropout": 0.2,
}
MEL_4_SMALL = MEL_2_SMALL | {"model.plan_size": 16, "train_vae.steps": 6000}
PAPER_16 = PUBLISHED | BARS_16 | FREE_256
SMALL_16: Preset = SMALL | BARS_16 | FREE_256 | sizes(160, 1, 256, 1, 128) | {
    "model.summary_size": 8, "train_vae.dropout": 0.1, "train_vae.beta": 0.2, "train_vae.steps": 2000,
}
PLAN: Preset = {"model.plan_size": 8}
PLAN_16: Preset = {"model.plan_size": 16, "model.summary_size": 8}
DOCUMENT = FREE_48 | HIER_4 | sizes(512, 1, 256, 2, 256, conductor=256) | {"dataset.holdout": 0.0}  # those held nothing out
DOCUMENT_SMALL: Preset = SMALL | BARS_4 | HIER_4 | FREE_48 | sizes(192, 1, 256, 1, 128, conductor=192) | {
    "dataset.holdout": 0.0, "train_vae.beta": 0.2, "train_vae.beta_anneal": 0, "train_vae.dropout": 0.0, "train_vae.word_dropout": 0.0,
    "train_vae.steps": 12_000,
}
GROOVAE = PUBLISHED | GROOVE | FREE_48 | sizes(512, 1, 256, 2, 256) | {"train_vae.dropout": 0.7}
GROOVAE_SMALL: Preset = SMALL | GROOVE | FREE_48 | PLAN_16 | sizes(192, 1, 256, 1, 128) | {
    "train_vae.beta": 0.2, "train_vae.word_dropout": 0.0, "train_vae.steps": 4000, "model.groove_spread": True,
}
HUMANIZE: Preset = {"tokenizer.given": "hits", "sample.temperature": 1.0}  # loudness and timing spread as people's do
TAP: Preset = {"tokenizer.given": "taps"}

FAMILY: dict[str, Preset] = {
    "melody_2bar_small": SMALL | MELODY | BARS_2 | sizes(256, 1, 384, 1, 64) | MEL_2_SMALL,
    "melody_2bar": MEL_2 | sizes(512, 1, 256, 2, 256),
    "melody_2bar_big": MEL_2 | sizes(2048, 1, 2048, 3, 512) | {"train_vae.beta": 0.5},
    "melody_4bar_hier_small": SMALL | MELODY | BARS_4 | HIER_4 | sizes(192, 1, 256, 1, 96, conductor=192) | MEL_4_SMALL,
    "melody_4bar_hier": PUBLISHED | MELODY | BARS_4 | DOCUMENT | {"dataset.holdout": 0.1},
    "melody_16bar_flat_small": SMALL_16 | MELODY,
    "melody_16bar_flat": PAPER_16 | MELODY | sizes(2048, 2, 2048, 3, 512),
    "melody_16bar_hier_small": SMALL_16 | MELODY | HIER_16 | PLAN,
    "melody_16bar_plan_small": SMALL_16 | MELODY | PLAN,
    "melody_16bar_hier": PAPER_16 | MELODY | HIER_16 | sizes(2048, 2, 1024, 2, 512, conductor=1024),
    "drums_2bar_small": SMALL | DRUMS | BARS_2 | PLAN_16 | sizes(192, 1, 256, 1, 64) | {"train_vae.steps": 4000},
    "drums_2bar": PUBLISHED | DRUMS | BARS_2 | SAMPLED | FREE_48 | sizes(512, 1, 256, 2, 256),
    "drums_2bar_big": PUBLISHED | DRUMS | BARS_2 | SAMPLED | FREE_48 | sizes(2048, 1, 2048, 3, 512),
    "drums_4bar_hier_v1_small": DOCUMENT_SMALL | DRUMS | FEEDBACK | {"train_vae.steps": 36_000},  # three times the windows of v2
    "drums_4bar_hier_v1": PUBLISHED | DRUMS | BARS_4 | SAMPLED | DOCUMENT | FEEDBACK | {"model.z_size": 512},
    "drums_4bar_hier_v2_small": DOCUMENT_SMALL | DRUMS | FEEDBACK | ROCK | {"train_vae.steps": 16_000},
    "drums_4bar_hier_v2": PUBLISHED | DRUMS | BARS_4 | SAMPLED | DOCUMENT | FEEDBACK | ROCK | {"model.z_size": 512},
    "drums_4bar_hier_v3_small": DOCUMENT_SMALL | DRUMS | FEEDBACK | ROCK | {"model.z_size": 64},
    "drums_4bar_hier_v3": PUBLISHED | DRUMS | BARS_4 | SAMPLED | DOCUMENT | FEEDBACK | ROCK,
    "drums_16bar_flat_small": SMALL_16 | DRUMS,
    "drums_16bar_flat": PAPER_16 | DRUMS | sizes(2048, 2, 2048, 3, 512),
    "drums_16bar_hier_small": SMALL_16 | DRUMS | HIER_16 | PLAN,
    "drums_16bar_plan_small": SMALL_16 | DRUMS | PLAN,
    "drums_16bar_hier": PAPER_16 | DRUMS | HIER_16 | sizes(2048, 2, 1024, 2, 512, conductor=1024),
    "groove_2bar_small": GROOVAE_SMALL | BARS_2,
    "groove_2bar": GROOVAE | BARS_2,
    "groove_2bar_humanize_small": GROOVAE_SMALL | BARS_2 | HUMANIZE,
    "groove_2bar_humanize": GROOVAE | BARS_2 | HUMANIZE,
    "groove_2bar_tap_small": GROOVAE_SMALL | BARS_2 | TAP,
    "groove_2bar_tap": GROOVAE | BARS_2 | TAP,
    "groove_4bar_small": GROOVAE_SMALL | BARS_4,
    "groove_4bar": GROOVAE | BARS_4,
    "groove_4bar_hier_small": GROOVAE_SMALL | BARS_4 | HIER_4 | {"model.conductor_size": 192},
    "groove_4bar_hier": GROOVAE | BARS_4 | DOCUMENT | {"train_vae.dropout": 0.0, "dataset.holdout": 0.1},
    "trio_16bar_small": SMALL_16 | TRIO | HIER_16 | PLAN,
    "trio_16bar": PAPER_16 | TRIO | HIER_16 | sizes(2048, 2, 1024, 2, 512, conductor=1024) | {"train_vae.batch_size": 256},
}
