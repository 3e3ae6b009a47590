import torch

from memofast.ops import philox


def words(*values):
    return tuple(torch.tensor(value, dtype=torch.int64) for value in values)


def test_known_answers_of_random123():
    ones, zero = 0xFFFFFFFF, 0
    cases = [
        ((zero,) * 2, (zero,) * 4, [0x6627E8D5, 0xE169C58D, 0xBC57AC4C, 0x9B00DBD8]),
        ((ones,) * 2, (ones,) * 4, [0x408F276D, 0x41C83B0E, 0xA20BC7C6, 0x6D5451FD]),
        (
            (0xA4093822, 0x299F31D0),
            (0x243F6A88, 0x85A308D3, 0x13198A2E, 0x03707344),
            [0xD16CFE09, 0x94FDCCEB, 0x5001E420, 0x24126EA1],
        ),
    ]
    for key, counter, expected in cases:
        assert philox.philox(words(*key), words(*counter)).tolist() == expected
