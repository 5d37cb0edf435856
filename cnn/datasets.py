"""The supported data sets, and what is known of each before it is loaded."""

from typing import Literal, NamedTuple


class Dataset(NamedTuple):
    """Properties of a data set, known before it is loaded."""

    image_shape: tuple[int, int, int]
    """Height, width and channels."""
    train_images: int
    """Number of published training images, the validation images included."""
    test_images: int
    """Number of published test images."""
    class_names: tuple[str, ...]
    """English names, by label."""
    builder: tuple[str, str]
    """Module in ``tensorflow_datasets.image_classification``, and builder class."""
    korean_names: tuple[str, ...] = ()
    """Korean names, by label; () if there are none."""


DatasetName = Literal["fashion_mnist", "mnist", "kmnist", "cifar10", "images"]
"""Of a published data set; "images" are the user's own."""

DATASETS: dict[DatasetName, Dataset] = {
    "fashion_mnist": Dataset(
        (28, 28, 1),
        60_000,
        10_000,
        ("T-shirt/top", "Trouser", "Pullover", "Dress", "Coat", "Sandal", "Shirt", "Sneaker", "Bag", "Ankle boot"),
        ("mnist", "FashionMNIST"),
        ("티셔츠", "바지", "스웨터", "드레스", "코트", "샌달", "셔츠", "스니커즈", "가방", "앵클 부츠"),
    ),
    "mnist": Dataset((28, 28, 1), 60_000, 10_000, tuple("0123456789"), ("mnist", "MNIST")),
    "kmnist": Dataset(
        (28, 28, 1),
        60_000,
        10_000,
        ("o", "ki", "su", "tsu", "na", "ha", "ma", "ya", "re", "wo"),
        ("mnist", "KMNIST"),
    ),
    "cifar10": Dataset(
        (32, 32, 3),
        50_000,
        10_000,
        ("airplane", "automobile", "bird", "cat", "deer", "dog", "frog", "horse", "ship", "truck"),
        ("cifar", "Cifar10"),
    ),
}
"""One entry per published data set."""
