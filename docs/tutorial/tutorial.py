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
# # From Keras to JAX: the CNN chapter, cell by cell
#
# *합성곱 신경망, 케라스에서 JAX로*
#
# You have trained your first convolutional network (합성곱 신경망) in Keras: Fashion-MNIST, two convolutions, early
# stopping, and then a look at the kernels and the feature maps. This notebook does all of it again with this project,
# in JAX. The network, the optimizer and the training rule are the same. The state is kept differently: in Keras,
# a model object holds the weights, the optimizer and the history, and its methods modify them. Here **the state is a
# value in a variable of yours, and functions return the next value.**
#
# Above most cells is the equivalent Keras code, and the reason for the difference. All cells together take two or three
# minutes on two cores, nearly all of it training. With `SUBSET=300` in the environment they take less than one minute,
# and the network learns little. To run the notebook, install its extra,
# `.venv/bin/pip install -c constraints.txt -e '.[tutorial]'`, and select `.venv` as the kernel.

# %%
# %matplotlib inline
import os
import time
from pathlib import Path

import jax
import numpy as np

import cnn
from cnn.figures import image_plots, kernel_plots, plots

SUBSET = int(os.environ.get("SUBSET", 0))  # how many images of each split, for a quick look; 0 for all

# %% [markdown]
# # Part 1. Classifying images (이미지 분류)
#
# ## One configuration
#
# In Keras, the settings of an experiment are spread over the notebook: layers here, `compile` there, `epochs` in `fit`.
# Here they are one frozen [dataclass](https://docs.python.org/3/library/dataclasses.html). The defaults are the
# chapter's, so this is all we have to write. An invalid value is refused at once, with the name of its field, and not
# an hour later: try `cnn.TrainConfig(epochs=0)`.

# %%
config = cnn.ExperimentConfig(train=cnn.TrainConfig(epochs=2 if SUBSET else 20, patience=2, seed=0))
print(config.model, config.optim.name, config.optim.learning_rate, config.optim.batch_size, sep="\n")

# %% [markdown]
# ## The data
#
# ```python
# # Keras
# (train_input, train_target), (test_input, test_target) = keras.datasets.fashion_mnist.load_data()
# train_scaled = train_input.reshape(-1, 28, 28, 1) / 255.0
# train_scaled, val_scaled, train_target, val_target = train_test_split(
#     train_scaled, train_target, test_size=0.2, random_state=42)
# ```
#
# One call does the same: 48,000 images to train on, 12,000 for validation (검증 세트), 10,000 for the test. The
# validation images are those that `train_test_split` selects with `random_state=42`, but within each split the images
# keep their published order. So the first training image is the first of the data set, an ankle boot, which we shall
# examine in part 2, and the first validation image is not that of the chapter.
#
# Two things are the same: a convolution needs a channel axis (채널), so an image is 28 × 28 × **1**; and the labels are
# integers. One is different: the pixels are still bytes from 0 to 255. They are divided by 255 inside the compiled
# step, so that the images need a quarter of the memory of 32-bit numbers, and scaling cannot be forgotten.

# %%
splits = cnn.load_data(config.data)
if SUBSET:
    splits = cnn.Splits(*(cnn.Split(split.images[:SUBSET], split.labels[:SUBSET]) for split in splits))
names = cnn.class_names(config.data)

for name, (images, labels) in splits._asdict().items():
    print(f"{name:5}  images {images.dtype} {images.shape}  labels {labels.dtype} {labels.shape}")

# %%
from cnn.datasets import DATASETS

image_plots.sample(splits.train.images[:20], splits.train.labels[:20], names, DATASETS["fashion_mnist"].korean_names)

# %% [markdown]
# Before we train one: a network of this kind ships with the package, so that we can see what the end looks like.

# %%
shipped, _ = cnn.load_pretrained()
[names[label] for label in np.argmax(cnn.predict(shipped, splits.test.images[:5]), axis=1)]

# %% [markdown]
# ## The model, and where its parameters are
#
# ```python
# # Keras
# model = keras.Sequential()
# model.add(keras.layers.Input(shape=(28, 28, 1)))
# model.add(keras.layers.Conv2D(32, kernel_size=3, activation="relu", padding="same"))
# model.add(keras.layers.MaxPooling2D(2))
# model.add(keras.layers.Conv2D(64, kernel_size=3, activation="relu", padding="same"))
# model.add(keras.layers.MaxPooling2D(2))
# model.add(keras.layers.Flatten())
# model.add(keras.layers.Dense(100, activation="relu"))
# model.add(keras.layers.Dropout(0.4))
# model.add(keras.layers.Dense(10, activation="softmax"))
# ```
#
# Here the model is a function from images to outputs, written with [Flax](https://flax.readthedocs.io). It is short:

# %%
import inspect

from cnn.models.cnn import CNN

print(inspect.getsource(CNN.__call__))

# %% [markdown]
# You recognize every layer: convolution (합성곱) with kernels (커널) of 3 × 3, one per filter (필터); by default,
# `"SAME"` zero padding (패딩) and a stride (스트라이드) of 1, so that the image keeps its size; max pooling
# (최대 풀링), which halves it; dense layers (밀집층) and dropout (드롭아웃). Three things differ:
#
# * **Every layer has a name**: `conv1`, `pool1`, ... Its weights and activations are found by this name.
# * **The last layer has no softmax.** It returns *logits*, any real numbers. The loss is computed from the logits, as
#   the logarithm of a softmax is finite when computed in one operation, and may be log 0 when computed in two. (Keras
#   has this too: `from_logits=True`.) Only `cnn.predict` converts them to probabilities.
# * **The model holds no weights**, and whether it is training is an argument. `model.add` has no counterpart:
#   `create_state` initializes the parameters from a seed and returns them.

# %%
state = cnn.create_state(config)
jax.tree.map(np.shape, state.params)

# %% [markdown]
# `state.params` is a plain dictionary by layer, and `state` is all that training changes: step, parameters, and Adam's
# moments. There is no other state.
#
# **Random numbers have no hidden state either.** In Keras you call `keras.utils.set_random_seed(42)` and hope that
# nobody draws a number in between. JAX needs a *key* for every random operation, and the same key always gives the
# same numbers. Here all keys are derived from `config.train.seed`: the key of the initial weights, of the order of the
# images in epoch 3, of the dropout in step 1,234.

# %%
again = cnn.create_state(config)
other = cnn.create_state(cnn.ExperimentConfig(train=cnn.TrainConfig(seed=1)))
for name, second in (("the same seed", again), ("another seed", other)):
    equal = np.array_equal(state.params["conv1"]["kernel"], second.params["conv1"]["kernel"])
    print(f"{name}: the kernels of conv1 are {'equal, bit for bit' if equal else 'different'}")

# %% [markdown]
# `model.summary()` and `keras.utils.plot_model(model, show_shapes=True)` are functions of the state. `None` is the
# batch. The convolutions have few parameters and do most of the work; the first dense layer has nearly all of the
# parameters.

# %%
from cnn.training.summary import format_table

layers = cnn.layer_table(state)
print(format_table(layers, "The chapter's network"))

# %%
plots.model_diagram(layers)

# %% [markdown]
# Can you work out the numbers? `conv1` has 3 × 3 × 1 × 32 weights and 32 biases (절편), that is 320. `conv2` sees 32
# channels: 3 × 3 × 32 × 64 + 64 = 18,496. Two poolings reduce 28 × 28 to 7 × 7, so `flatten` gives
# 7 × 7 × 64 = 3,136 values, and `dense` has 3,136 × 100 + 100 = 313,700 parameters.
#
# ## One step, and what `jit` compiles
#
# ```python
# # Keras
# model.compile(optimizer="adam", loss="sparse_categorical_crossentropy", metrics=["accuracy"])
# ```
#
# There is no `compile` here. Optimizer and learning rate are fields of the configuration; the loss (손실) is
# cross-entropy of the integer labels, the same as in the chapter. What is compiled is the *function*: `cnn.train_step`
# is decorated with `jax.jit`. When it is first called, JAX *traces* it: it runs the Python once, with placeholders that
# have a shape and a type but no values, and notes every operation (forward pass, loss, gradients, Adam's update). XLA
# compiles all of that into one program. The next call with the same shapes runs the program, and none of the Python.
# For a batch of another size, JAX compiles again.

# %%
batch = cnn.Batch(splits.train.images[:32], splits.train.labels[:32])
for call in ("first", "second"):
    begin = time.perf_counter()
    state, metrics = jax.block_until_ready(cnn.train_step(state, batch))
    print(f"{call} call: {time.perf_counter() - begin:.3f} s, loss {metrics.loss:.3f}, step {state.step}")

# %% [markdown]
# The first loss is near log 10 = 2.303, that of a network for which all ten classes are equally likely.
#
# Look at the line that calls it: **`state, metrics = cnn.train_step(state, batch)`**. A step does not change the state:
# it returns a new one, and we drop the old one. (We must: its buffers are *donated* to the new one. Using it raises
# `Array has been deleted`.) This habit is most of what there is to learn. In return, a step is a function in the
# mathematical sense: the same state and batch give the same result, today and after a restart.
#
# The loop of an epoch (에포크) is compiled as well: `cnn.train_epoch(state, splits.train, batch_size=32)` is one call
# for all of its 1,500 steps, without Python in between.
#
# ## Training, with early stopping and checkpoints
#
# ```python
# # Keras
# checkpoint_cb = keras.callbacks.ModelCheckpoint("best-cnn-model.keras", save_best_only=True)
# early_stopping_cb = keras.callbacks.EarlyStopping(patience=2, restore_best_weights=True)
# history = model.fit(train_scaled, train_target, epochs=20, validation_data=(val_scaled, val_target),
#                     callbacks=[checkpoint_cb, early_stopping_cb])
# ```
#
# `cnn.fit` takes the configuration and a directory. Early stopping (조기 종료) follows Keras' rule: stop when the
# validation loss has not improved for `patience` epochs. Checkpoints are written by
# [orbax](https://orbax.readthedocs.io), and the best one is kept. `report` is the only callback that we need.

# %%
run_dir = Path("runs", f"tutorial-{SUBSET}" if SUBSET else "tutorial")


def report(row):
    print(
        f"epoch {row['epoch']:2}  loss {row['train_loss']:.4f}  accuracy {row['train_accuracy']:.4f}  "
        f"val loss {row['val_loss']:.4f}  val accuracy {row['val_accuracy']:.4f}"
    )


result = cnn.fit(config, run_dir, splits, report=report)
print(f"best epoch: {result.summary['best_epoch']} of {result.summary['stopped_epoch']}")

# %% [markdown]
# `result.state` is the state after the *best* epoch, as with `restore_best_weights=True`.
#
# Run the cell again: nothing is trained, as the run in that directory has finished. Interrupt it and run it again: it
# resumes from its last checkpoint, with bitwise the same result. This is the benefit of keys and values: there is no
# hidden state that a checkpoint could miss. To train from scratch, name another directory.
#
# ## Learning curves (학습 곡선)
#
# `history.history["loss"]` is `result.history`, a list with a dictionary for each epoch; the same lines are in
# `metrics.jsonl` in the run's directory. Why is the loss of the first epochs lower on the validation images than on the
# training images? As in Keras, the training loss is a mean over the epoch, while the network was still learning, and
# with 40 % of the hidden units dropped.

# %%
plots.learning_curves(result.history, result.summary["best_epoch"])

# %% [markdown]
# ## Evaluation
#
# ```python
# # Keras
# model.evaluate(val_scaled, val_target)
# ```
#
# `cnn.evaluate` returns sums and counts, from which loss and accuracy follow by one division. So the number of correct
# images is an integer, and it does not depend on the batch size: a partial last batch is padded, and the padding is
# masked.

# %%
val = cnn.evaluate(result.state, splits.val)
print(f"loss {val.loss:.4f}, accuracy {val.accuracy:.4f}: {val.correct:,} of {val.count:,} images")
assert val.correct == cnn.evaluate(result.state, splits.val, batch_size=100).correct

# %% [markdown]
# ## Predicting one image
#
# The first validation image, drawn dark on white as in the book:

# %%
image_plots.image(splits.val.images[0], f"The first validation image: {names[splits.val.labels[0]]}")

# %% [markdown]
# ```python
# # Keras
# preds = model.predict(val_scaled[0:1])
# plt.bar(range(1, 11), preds[0])
# ```
#
# As in Keras, the model needs a batch, even of one image: `[:1]`, not `[0]`. `cnn.predict` applies the softmax, so the
# ten numbers are probabilities and add up to 1.

# %%
probabilities = np.asarray(cnn.predict(result.state, splits.val.images[:1]))
print(probabilities.round(4), "sum", probabilities.sum().round(4))

# %%
image_plots.probabilities(splits.val.images[:1], probabilities, splits.val.labels[:1], names)

# %%
print("the classes:", ", ".join(names))
print("predicted:", names[probabilities[0].argmax()])

# %% [markdown]
# In the run shown here the prediction is correct, with low confidence. Looking at the picture, would you be sure?

# %% [markdown]
# ## The test score (테스트 점수)
#
# Once, at the end, as the chapter advises. `fit` has already done this with the best state: the result is in
# `result.summary` and in the run's `result.json`.

# %%
test = cnn.evaluate(result.state, splits.test)
print(f"test accuracy {test.accuracy:.4f}, in result.json {result.summary['test_accuracy']:.4f}")

# %% [markdown]
# # Part 2. Looking inside (합성곱 신경망의 시각화)
#
# ## The best model, from its file
#
# ```python
# # Keras
# model = keras.models.load_model("best-cnn-model.keras")
# conv_weights = model.layers[0].weights[0]
# print(conv_weights.shape, conv_weights.numpy().mean(), conv_weights.numpy().std())
# ```
#
# Here the layer is found by its name, and its kernel by `"kernel"`. It has the same axes as in Keras: height, width,
# input channels, filters.

# %%
state, config = cnn.load_best(run_dir)
trained = np.asarray(state.params["conv1"]["kernel"])
print(trained.shape, trained.mean(), trained.std())

# %% [markdown]
# ## Comparison with an untrained model
#
# ```python
# # Keras
# no_training_model = keras.Sequential()
# no_training_model.add(...)   # all of the layers, once more
# ```
#
# It need not be built again: `create_state` returns the state before training, to the bit. Its weights are drawn from
# the uniform distribution on ±√(6 / (9 + 288)) ≈ ±0.142 (Glorot's rule, the default of Keras, too: each output has 9
# inputs, and each input has 288 outputs).

# %%
untrained = np.asarray(cnn.create_state(config).params["conv1"]["kernel"])
print(untrained.shape, untrained.mean(), untrained.std(), "at most", np.abs(untrained).max())

# %%
plots.weights_histogram(trained, untrained, "conv1")

# %% [markdown]
# Training has spread the weights: the standard deviation is larger, and the distribution is no longer uniform. The 32
# kernels as pictures, blue for negative weights, red for positive ones, first after training:

# %%
kernel_plots.kernels(trained, "The 32 kernels of conv1, trained")

# %%
kernel_plots.kernels(untrained, "The 32 kernels of conv1, untrained")

# %% [markdown]
# Both pictures share one scale. Trained kernels have larger weights, and many have a direction: red on one side, blue
# on the other. Such a kernel responds to an edge.
#
# ## From input to `conv1`: the functional API, and functions
#
# ```python
# # Keras
# conv_acti = keras.Model(model.inputs, model.layers[0].output)
# feature_maps = conv_acti.predict(train_input[0:1].reshape(-1, 28, 28, 1) / 255.0)
# ```
#
# In Keras you build a second model (함수형 API) that ends at the layer of interest. When a model is a function and its
# layers have names, nothing has to be built: Flax can capture the outputs of all layers, and `cnn.feature_maps` returns
# them by name. They are the inputs of the next layer, so those of a convolution are after ReLU.

# %%
ankle_boot = splits.train.images[:1]
maps = cnn.feature_maps(state, ankle_boot)
for name, output in maps.items():
    print(f"{name:8} {output.shape}")

# %%
image_plots.image(ankle_boot[0], f"The first training image: {names[splits.train.labels[0]]}")

# %% [markdown]
# A feature map (특성 맵) is not magic. With the parameters in a variable, we can compute one point of all 32 maps with
# NumPy: the sum of the 3 × 3 pixels around row 10, column 10, times each kernel, plus the bias, with negative values
# set to 0.

# %%
patch = ankle_boot[0, 9:12, 9:12, 0] / 255
by_hand = np.maximum(np.einsum("hw,hwk->k", patch, trained[:, :, 0]) + state.params["conv1"]["bias"], 0)
print("largest difference from cnn.feature_maps:", np.abs(by_hand - maps["conv1"][0, 10, 10]).max())

# %% [markdown]
# And these are all points. Each kernel gives its own picture of the ankle boot (앵클 부츠): some keep its surface,
# others its outline, or edges in one direction. Where a map is bright around the boot, it shows the kernel's bias: the
# pixels there are 0, and so are their products with the weights.

# %%
image_plots.feature_maps(np.asarray(maps["conv1"][0]), "What the 32 kernels of conv1 make of the ankle boot")

# %% [markdown]
# The input of the second convolution is all 32 maps, halved in size by the pooling (풀링). Its 64 maps have 14 × 14
# points. It is harder to say what each of them detects: some respond to a part of the boot, such as its sole or the
# front of its shaft, and some do not respond to a boot at all.

# %%
image_plots.feature_maps(np.asarray(maps["conv2"][0]), "What the 64 kernels of conv2 make of the ankle boot")

# %% [markdown]
# ## Where to go from here
#
# | in Keras | here |
# |---|---|
# | arguments of layers, `compile` and `fit` | `cnn.ExperimentConfig`, one frozen dataclass |
# | `model.weights`, changed in place | `state.params`, a dictionary; a step returns a new state |
# | `keras.utils.set_random_seed` | a key, derived from `config.train.seed` for each use |
# | `model.compile` | `jax.jit`, at a function's first call |
# | softmax in the last layer | logits; softmax in `cnn.predict` |
# | `EarlyStopping`, `ModelCheckpoint` | `cnn.fit(config, run_dir)` |
# | `load_model` | `cnn.load_best(run_dir)` |
# | `keras.Model(inputs, layer.output)` | `cnn.feature_maps(state, images)[name]` |
#
# * `python -m cnn look runs/tutorial --layer conv2 --image my.png` draws any layer's feature maps of your own picture,
#   and the regions that support its predicted class.
# * `python -m cnn evaluate runs/tutorial` reports which classes are confused, and whether confidence is calibrated.
# * [The next notebook](next.ipynb) reads images row by row (순환 신경망) and finds garments in scenes (객체 인식).
# * Change one thing and see: `cnn.ExperimentConfig(model=cnn.ModelConfig(dropout_rate=0.2))`, in another directory. The
#   README shows how to write an experiment and how to compare several.
