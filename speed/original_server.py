"""The original MusicVAE, measured: its 2-bar melody model in training and in sampling, on random melodies.

Runs by itself in an interpreter that has TensorFlow and magenta (see README.md), and imports nothing of this project. For each line
`training 64` or `sampling 1024` (what, and batch size) on its standard input it takes a measurement, and answers with a line: melodies a
second. When it has found what it needs it says `ready`.
"""

import functools
import importlib.util
import os
import sys
import time
import types

STEPS, CLASSES, Z_SIZE = 32, 90, 256
LATE = 9000  # global step of training: most steps are the model's own, as scheduled sampling has it late in training
SECONDS = 1.5  # that a measurement takes at least


@functools.cache
def import_original():
    """lstm_models, base_model, HParams and merge_hparams of magenta, without what its packages import besides: dozens of old libraries."""
    found = importlib.util.find_spec("magenta")
    if found is None or not found.submodule_search_locations:
        sys.exit("magenta is not installed for this interpreter; see README.md, the table beside the original")
    root = next(iter(found.submodule_search_locations))
    for name in ("magenta", "magenta.models.music_vae"):
        package = types.ModuleType(name)
        package.__path__ = [os.path.join(root, *name.split(".")[1:])]
        sys.modules[name] = package
    from magenta.common import merge_hparams
    from magenta.contrib.training import HParams
    from magenta.models.music_vae import base_model, lstm_models

    return lstm_models, base_model, HParams, merge_hparams


def build(batch, is_training):
    """The model of `cat-mel_2bar_small`, as the original's configs.py has it."""
    lstm_models, base_model, hparams, merge_hparams = import_original()
    sizes = {"z_size": Z_SIZE, "enc_rnn_size": [512], "dec_rnn_size": [256, 256], "max_seq_len": STEPS, "batch_size": batch}
    losses = {"free_bits": 0, "max_beta": 0.2, "beta_rate": 0.99999, "sampling_schedule": "inverse_sigmoid", "sampling_rate": 1000}
    options = merge_hparams(lstm_models.get_default_hparams(), hparams(**sizes, **losses))
    model = base_model.MusicVAE(lstm_models.BidirectionalLstmEncoder(), lstm_models.CategoricalLstmDecoder())
    model.build(options, CLASSES, is_training)
    return model, options


def training(batch):
    """A function that takes one optimizer step, as the original's training script does: Adam, gradients clipped by their norm."""
    import tensorflow.compat.v1 as tf

    model, options = build(batch, True)
    melodies = tf.one_hot(tf.random_uniform([batch, STEPS], maxval=CLASSES, dtype=tf.int32), CLASSES)
    optimizer = model.train(melodies, melodies, tf.fill([batch], STEPS))
    gradients, weights = zip(*optimizer.compute_gradients(model.loss), strict=True)
    clipped, _ = tf.clip_by_global_norm(gradients, options.grad_clip)
    step = optimizer.apply_gradients(list(zip(clipped, weights, strict=True)), global_step=model.global_step)
    session = tf.Session()
    session.run(tf.global_variables_initializer())
    session.run(tf.assign(model.global_step, LATE))
    return lambda: session.run(step)


def sampling(batch):
    """A function that decodes a batch of latents at temperature 1."""
    import numpy as np
    import tensorflow.compat.v1 as tf

    model, _ = build(batch, False)
    latents, temperature = tf.placeholder(tf.float32, [batch, Z_SIZE]), tf.placeholder(tf.float32, ())
    samples, _ = model.sample(batch, max_length=STEPS, z=latents, temperature=temperature)
    session = tf.Session()
    session.run(tf.global_variables_initializer())
    given = {latents: np.random.randn(batch, Z_SIZE).astype(np.float32), temperature: 1.0}
    return lambda: session.run(samples, given)


def main():
    os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")
    import tensorflow.compat.v1 as tf

    tf.disable_eager_execution()
    tf.logging.set_verbosity(tf.logging.ERROR)
    import_original()
    print("ready", flush=True)
    works = {}
    for line in sys.stdin:
        kind, batch = line.split()[0], int(line.split()[1])
        if (kind, batch) not in works:
            with tf.Graph().as_default():
                works[kind, batch] = {"training": training, "sampling": sampling}[kind](batch)
            works[kind, batch]()
        calls, begin = 0, time.perf_counter()
        while not calls or time.perf_counter() - begin < SECONDS:
            works[kind, batch]()
            calls += 1
        print(calls * batch / (time.perf_counter() - begin), flush=True)


if __name__ == "__main__":
    main()
