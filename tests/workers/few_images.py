"""The command of an experiment, narrow, on few images: trains, draws and reports in some seconds."""

import cnn
from cnn.run import main
from experiments.fashion_cnn import CONFIG
from tests.helpers import narrow, shrink

if __name__ == "__main__":
    main(narrow(CONFIG, epochs=1), shrink(cnn.load_data(CONFIG.data), 300, 100, 100))
