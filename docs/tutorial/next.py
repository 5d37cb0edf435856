# ---
# jupyter:
#   jupytext:
#     formats: ipynb,py:percent
#     text_representation:
#       extension: .py
#       format_name: percent
#   kernelspec:
#     display_name: Python 3
#     language: python
#     name: python3
# ---

# %% [markdown]
# # After the CNN chapter: reading an image, and finding things in it
#
# *순환 신경망과 객체 인식*
#
# The chapter's opening names what follows in the book: recurrent networks (순환 신경망), and the detection of objects
# (객체 인식). Both are here, with the functions of the [first notebook](tutorial.ipynb): the configuration is another,
# `cnn.fit` is the same. All cells together take some five minutes on two cores; with `SUBSET=200` in the environment
# less than one, and the networks learn little.

# %%
# %matplotlib inline
import os
from pathlib import Path

import jax
import numpy as np

import cnn
from cnn.figures import image_plots, plots, scene_plots
from cnn.look.reading import reading_figure

SUBSET = int(os.environ.get("SUBSET", 0))  # how many images of each split, for a quick look; 0 for all


def load(data):
    splits = cnn.load_data(data)
    return cnn.Splits(*(cnn.Split(*(array[: SUBSET or None] for array in split)) for split in splits))


def report(row):
    print(f"epoch {row['epoch']:2}  " + "  ".join(f"{name} {row[name]:.4f}" for name in row if name.startswith("val_")))


# %% [markdown]
# # Part 1. Reading row by row (순환 신경망)
#
# ```python
# # Keras
# model.add(keras.layers.LSTM(64, input_shape=(28, 28)))
# model.add(keras.layers.Dense(10, activation='softmax'))
# ```
#
# A convolution sees all of an image at once. A recurrent network reads it from top to bottom: 28 steps (타임스텝),
# each a row of 28 pixels. What it remembers between two rows is its **hidden state** (은닉 상태), here 64 numbers.
# The LSTM has a second memory, the cell state (셀 상태), which gates open and close; `cell="gru"` and `cell="rnn"`
# are its simpler relatives. After the last row a dense layer names the class.

# %%
lstm = cnn.ExperimentConfig(
    name="next_lstm",
    model=cnn.RecurrentConfig(cell="lstm", features=64),
    optim=cnn.OptimConfig(learning_rate=3e-3, batch_size=64),
    train=cnn.TrainConfig(epochs=1 if SUBSET else 6),
)
splits = load(lstm.data)
run_dir = Path("runs", f"lstm-{SUBSET}" if SUBSET else "lstm")
reader = cnn.fit(lstm, run_dir, splits, report=report)
print(f"test accuracy {reader.summary['test_accuracy']:.4f}")

# %% [markdown]
# How sure would the network be if the image ended here? From top to bottom: the image, the hidden state after each of
# its rows, and the probability of the classes if that row were the last. The neck alone might be any garment's.

# %%
names = cnn.class_names(lstm.data)
reading_figure(reader.state, splits.test.images[1], names, "The second test image")

# %% [markdown]
# # Part 2. Finding things (객체 인식)
#
# A classifier says what an image is. A detector says what is in it, and **where**: for each object a box and a class.
# Fashion-MNIST has one garment an image, so that scenes are composed of it: up to six garments of any size between 16
# and 48 pixels, on a background with clutter and noise. Each step of the training composes new ones, inside the
# compiled program; the scenes for validation and test stay the same.

# %%
detector = cnn.ExperimentConfig(
    name="next_yolo",
    data=cnn.DataConfig(scenes=96),
    model=cnn.YoloConfig(features=8, dtype="float32"),
    optim=cnn.OptimConfig(learning_rate=3e-3, schedule="warmup_cosine"),
    train=cnn.TrainConfig(epochs=1 if SUBSET else 2, monitor="val_map"),
)
scenes = load(detector.data)
print("to learn from:", scenes.train.images.shape, "to test:", scenes.test.images.shape, scenes.test.labels.shape)
print("the first test scene: x_min, y_min, x_max, y_max, class")
print(scenes.test.labels[0])

# %%
scene_plots.scenes(scenes.test.images[:4], scenes.test.labels[:4], None, names, "Test scenes with their true boxes")

# %% [markdown]
# ## One look: a grid of cells
#
# YOLO ("you only look once") divides the image into a grid, here 12 × 12. Each cell predicts a box, how sure it is that
# the box holds an object (objectness), and the class. So the last layers are convolutions (합성곱) as before, and what
# they give for one cell has 4 + 1 + 10 numbers.

# %%
found = cnn.fit(detector, Path("runs", f"yolo-{SUBSET}" if SUBSET else "yolo"), scenes, report=report)
plots.learning_curves(found.history, found.summary["best_epoch"])

# %% [markdown]
# ## Boxes and their overlap
#
# Is a box right? That depends on its overlap with the true one: the area that both share, divided by the area that they
# cover together (IoU, intersection over union). Average precision (AP) counts a detection as right from an overlap of
# 0.5, or of 0.75, ... on; `val_map` is the mean over ten such thresholds and all classes.
#
# Several cells see the same garment. Of boxes of one class that overlap by more than 0.6, only the one with the highest
# score is kept: non-maximum suppression. `cnn.detect` does all of it in one compiled function.

# %%
detections = jax.device_get(cnn.detect(found.state, scenes.test.images[:4]))
print("scores of the first scene:", np.round(detections.scores[0][:6], 2))
scene_plots.scenes(
    scenes.test.images[:4], scenes.test.labels[:4], detections, names, "What the detector finds in the test scenes"
)

# %% [markdown]
# The map of the layer `objectness` says where the network predicts the centre of a garment: red over nothing is a
# mistake, pale over the centre of a garment a miss.

# %%
maps = cnn.feature_maps(found.state, scenes.test.images[:2])
objectness = np.asarray(jax.nn.sigmoid(maps["objectness"][..., 0].astype(np.float32)))
scene_plots.objectness(scenes.test.images[:2], objectness, "Objectness of the cells")

# %% [markdown]
# The first convolution (합성곱), here after its normalization, gives maps as in the chapter: those of a scene.

# %%
image_plots.feature_maps(
    np.asarray(maps["norm1"][0]), "Feature maps of the first convolution, normalized, for the first test scene"
)

# %% [markdown]
# ## Where to go from here
#
# | in the book | here |
# |---|---|
# | `keras.layers.LSTM`, `GRU`, `SimpleRNN` | `cnn.RecurrentConfig(cell="lstm")`, `"gru"`, `"rnn"` |
# | a sequence (시퀀스) of 28 time steps | the rows of an image |
# | YOLO | `cnn.YoloConfig`, `cnn.detect` |
#
# * `python -m experiments.lstm` and `python -m experiments.yolo` train the larger ones.
# * [docs/detection.md](../detection.md) says how scenes, losses and scores are computed, and how to train on images
#   with boxes of your own, in COCO's or YOLO's files.
# * Change one thing: `dataclasses.replace(detector, model=cnn.YoloConfig(features=16))`, in another directory.
