"""xgboost's external memory in a process of its own: ``PYTHON boosting.py TABLE QUERY FOUND``.

It need not be among what this package is developed with: the variable SKPOU_XGBOOST names the
interpreter of an environment with xgboost. This file is run by that interpreter and imports numpy
and xgboost alone.
"""

import sys
import tempfile
import time

import numpy as np

#: Rows a block, rounds and depth: as many trees of about as many leaves as scikit-learn's.
BLOCK, ROUNDS, DEPTH = 10**5, 100, 5


def train(table):
    """Trees of the rows of a table, the targets its last column, that are read in blocks."""
    import xgboost

    class Blocks(xgboost.DataIter):
        def __init__(self, folder):
            self.start = 0
            super().__init__(cache_prefix=folder + "/cache")

        def next(self, input_data):
            part = np.asarray(table[self.start : self.start + BLOCK])
            if not len(part):
                return False
            input_data(data=part[:, :-1], label=part[:, -1])
            self.start += BLOCK
            return True

        def reset(self):
            self.start = 0

    with tempfile.TemporaryDirectory() as folder:
        rows = xgboost.ExtMemQuantileDMatrix(Blocks(folder), max_bin=256)
        options = {"tree_method": "hist", "max_depth": DEPTH, "eta": 0.1, "nthread": 1}
        model = xgboost.train(options, rows, ROUNDS)
        del rows  # Its files are removed with it.
        return model


def main(path, query, found):
    import xgboost

    start = time.process_time()
    model = train(np.load(path, mmap_mode="r"))
    seconds = time.process_time() - start
    mean = model.predict(xgboost.DMatrix(np.load(query)))
    np.savez(found, mean=mean, seconds=seconds)


if __name__ == "__main__":
    main(*sys.argv[1:])
