"""`examples_per_step: auto`: how many rows an optimizer step takes, from how many there are."""

SMALLEST, LARGEST = 4, 128
STEPS = 32  # of an epoch: fewer leave a learning-rate schedule no time to warm up and to fall


def automatic_step_size(rows: int) -> int:
    """The largest power of two from 4 to 128 that leaves at least 32 steps an epoch; 4 where none does.

    The last step of an epoch counts, though it may have fewer rows. Of the rows alone, never of the devices: a run goes
    on with the same steps on another number of them. 1, 2 and 4 devices divide it always, 8 from 249 rows on.
    """
    size = SMALLEST
    while size < LARGEST and -(-rows // (2 * size)) >= STEPS:
        size *= 2
    return size
