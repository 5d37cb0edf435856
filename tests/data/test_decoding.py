from cnn.data import decoding


def test_few_images_are_read_before_their_turn():
    read = []

    def items():
        for index in range(10_000):
            read.append(index)
            yield index

    for item, result in decoding.in_threads(lambda index: -index, items()):
        assert result == -item and len(read) < item + 100
    assert len(read) == 10_000
