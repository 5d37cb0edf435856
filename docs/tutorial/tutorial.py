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
# in JAX. The network, the optimizer and the training rule are the same. What differs is who holds what: in Keras, a
# model object holds the weights, the optimizer and the history, and its methods change them. Here **everything is a
# value that you hold in your hand, and functions make the next value of it.**
#
# Above most cells stands what you would have written in Keras, and why it is different here. All cells together take
# two or three minutes on two cores, nearly all of it training. With `SUBSET=300` in the environment they need less than
# one, and teach the network little.

# %%
# %matplotlib inline
import os
import time
from pathlib import Path

import jax
import numpy as np

import cnn
from cnn.figures import image_plots, plots

SUBSET = int(os.environ.get("SUBSET", 0))  # how many images of each split, for a quick look; 0 for all

# %% [markdown]
# # Part 1. Classifying images (이미지 분류)
#
# ## One configuration
#
# In Keras, the settings of an experiment are spread over the notebook: layers here, `compile` there, `epochs` in `fit`.
# Here they are one frozen [dataclass](https://docs.python.org/3/library/dataclasses.html). The defaults are the
# chapter's, so this is all that we have to write. A value that is not allowed is refused at once, by name, and not an
# hour later: try `cnn.TrainConfig(epochs=0)`.

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
# validation images are those that `train_test_split` picks with `random_state=42`; but within each split the images
# keep the order in which they were published. So the first training image is the data set's own first one, an ankle
# boot, which we shall look through in part 2, and the first validation image is not that of the chapter.
#
# Two things are as they were there: a convolution wants a channel axis (채널), so that an image is 28 × 28 × **1**; and
# the labels are integers. One is not: the pixels are still bytes from 0 to 255. They are divided by 255 inside of the
# compiled step, so that memory holds a quarter of what it would with 32-bit numbers, and nobody can forget to do it.

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
# You recognize every layer: convolution (합성곱) with kernels (커널) of 3 × 3, as many as there are filters (필터);
# zero padding (패딩) that is `"SAME"` and a stride (스트라이드) of 1 unless you say otherwise, so that the image keeps
# its size; max pooling (최대 풀링), which halves it; dense layers (밀집층) and dropout (드롭아웃). Three things differ:
#
# * **Every layer has a name**: `conv1`, `pool1`, ... We shall find its weights and its outputs by it.
# * **The last layer has no softmax.** It gives *logits*, any real numbers. The loss takes them as they are, as the
#   logarithm of a softmax is finite when computed in one go, and may be log 0 when computed in two. (Keras has this
#   too: `from_logits=True`.) Only `cnn.predict` makes probabilities of them.
# * **The model holds no weights**, and whether it is training is an argument. `model.add` has no counterpart:
#   `create_state` makes the parameters from a seed and gives them to you.

# %%
state = cnn.create_state(config)
jax.tree.map(np.shape, state.params)

# %% [markdown]
# `state.params` is a plain dictionary by layer, and `state` is all that training changes: step, parameters, and Adam's
# moments. There is nothing else, anywhere.
#
# **Random numbers have no hidden state either.** In Keras you call `keras.utils.set_random_seed(42)` and hope that
# nobody draws a number in between. JAX wants a *key* for whatever is random, and the same key always gives the same
# numbers. Here all keys are derived from `config.train.seed`: that of the initial weights, that of the order of the
# images in epoch 3, that of the dropout in step 1,234.

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
# channels: 3 × 3 × 32 × 64 + 64 = 18,496. Two poolings make 7 × 7 of 28 × 28, so that `flatten` gives
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
# compiles all of that into one program. The next call with the same shapes runs the program, and none of the Python. A
# batch of another size would be compiled anew.

# %%
batch = cnn.Batch(splits.train.images[:32], splits.train.labels[:32])
for call in ("first", "second"):
    begin = time.perf_counter()
    state, metrics = jax.block_until_ready(cnn.train_step(state, batch))
    print(f"{call} call: {time.perf_counter() - begin:.3f} s, loss {metrics.loss:.3f}, step {state.step}")

# %% [markdown]
# The first loss is near log 10 = 2.303, that of a network that takes all ten classes for equally likely.
#
# Look at the line that calls it: **`state, metrics = cnn.train_step(state, batch)`**. A step does not change the state,
# it returns a new one, and we let go of the old. (We must: its memory is used for the new one. JAX says so if you touch
# it: `Array has been deleted`.) This one habit is most of what there is to learn. In return a step is a function in
# the sense of mathematics: the same state and batch give the same result, today and after a restart.
#
# The loop of an epoch (에포크) is compiled as well: `cnn.train_epoch(state, splits.train, batch_size=32)` is one call
# for all of its 1,500 steps, and Python is not asked in between.
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
# validation loss has not become lower for `patience` epochs. Checkpoints are written by
# [orbax](https://orbax.readthedocs.io), and the best one is among those that are kept. `report` is the only callback
# that we need.

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
# Run the cell again: it trains nothing, as the run in that directory has finished. Interrupt it in the middle and run
# it again: it goes on from where it was, and comes to the same bits. That is what keys and values are good for: nothing
# is hidden that a checkpoint could miss. To train anew, name another directory.
#
# ## Learning curves (학습 곡선)
#
# `history.history["loss"]` is `result.history`, a list with a dictionary for each epoch; the same lines are in
# `metrics.jsonl` in the run's directory. Wonder why the first epochs are better on the validation images than on those
# that are trained on? As in Keras, the training loss is a mean over the epoch, while the network was still learning,
# and with 40 % of the hidden units dropped.

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
# `cnn.evaluate` returns sums and counts, of which loss and accuracy follow by one division. So you see how many images
# were right, as an integer, and whatever the batch size is, that number is the same: a last batch that is not full is
# filled up, and what fills it is masked.

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
# As there, the model wants a batch, if only of one: `[:1]`, not `[0]`. `cnn.predict` applies the softmax, so that the
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
# In the run that is shown here it is right, and not at all sure. Looking at the picture, are you?

# %% [markdown]
# ## The test score (테스트 점수)
#
# Once, at the end, as the chapter tells you. `fit` has done so already, with the best state: the number is in
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
# ## Beside an untrained model
#
# ```python
# # Keras
# no_training_model = keras.Sequential()
# no_training_model.add(...)   # all of the layers, once more
# ```
#
# We need not build it again: the state before training is what `create_state` makes of the configuration, to the bit.
# Its weights are drawn evenly between ±√(6 / (9 + 288)) ≈ ±0.142 (Glorot's rule, which is the default of Keras, too: 9
# values go into each output, and 288 come out of each input).

# %%
untrained = np.asarray(cnn.create_state(config).params["conv1"]["kernel"])
print(untrained.shape, untrained.mean(), untrained.std(), "at most", np.abs(untrained).max())

# %%
plots.weights_histogram(trained, untrained, "conv1")

# %% [markdown]
# Training has spread them out: the standard deviation has grown, and the flat block is gone. The 32 kernels as
# pictures, blue for negative weights, red for positive ones, first as training left them:

# %%
image_plots.kernels(trained, "The 32 kernels of conv1, trained")

# %%
image_plots.kernels(untrained, "The 32 kernels of conv1, untrained")

# %% [markdown]
# Both have one scale. Trained kernels are stronger, and many have a direction: red on one side, blue on the other. Such
# a kernel answers to an edge.
#
# ## From input to `conv1`: the functional API, and functions
#
# ```python
# # Keras
# conv_acti = keras.Model(model.inputs, model.layers[0].output)
# feature_maps = conv_acti.predict(train_input[0:1].reshape(-1, 28, 28, 1) / 255.0)
# ```
#
# In Keras you build a second model (함수형 API) which ends where you want to look. When a model is a function and its
# layers have names, there is nothing to build: Flax can be told to keep what each layer returns, and `cnn.feature_maps`
# gives you all of it, by name. It is what the next layer sees, so for a convolution that is after ReLU.

# %%
ankle_boot = splits.train.images[:1]
maps = cnn.feature_maps(state, ankle_boot)
for name, output in maps.items():
    print(f"{name:8} {output.shape}")

# %%
image_plots.image(ankle_boot[0], f"The first training image: {names[splits.train.labels[0]]}")

# %% [markdown]
# A feature map (특성 맵) is no magic. As the parameters are in our hands, we can compute a point of all 32 maps with
# NumPy: the 3 × 3 pixels round row 10, column 10, times each kernel, added up, plus the bias, and negative numbers
# become 0.

# %%
patch = ankle_boot[0, 9:12, 9:12, 0] / 255
by_hand = np.maximum(np.einsum("hw,hwk->k", patch, trained[:, :, 0]) + state.params["conv1"]["bias"], 0)
print("largest difference from cnn.feature_maps:", np.abs(by_hand - maps["conv1"][0, 10, 10]).max())

# %% [markdown]
# And here are all of their points. Each kernel has made its own picture of the ankle boot (앵클 부츠): some keep its
# surface, others its outline, or edges in one direction. Where a map is bright around the boot, you see the kernel's
# bias: the pixels there are 0, and so is all that they are multiplied with.

# %%
image_plots.feature_maps(np.asarray(maps["conv1"][0]), "What the 32 kernels of conv1 make of the ankle boot")

# %% [markdown]
# The second convolution sees these 32 maps, halved by the pooling (풀링), all at the same time. Its 64 maps are of
# 14 × 14 points. It is harder to say what each of them looks for: some answer to a part of the boot, such as its sole
# or the front of its shaft, and some have nothing to say about a boot at all.

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
# * `python -m cnn look runs/tutorial --layer conv2 --image my.png` draws what any layer makes of a picture of your own,
#   and where in it the network sees its class.
# * `python -m cnn evaluate runs/tutorial` says which classes it confuses, and how sure it may be.
# * Change one thing and see: `cnn.ExperimentConfig(model=cnn.ModelConfig(dropout_rate=0.2))`, in another directory. The
#   README says how to make an experiment of it, and how to compare many.
