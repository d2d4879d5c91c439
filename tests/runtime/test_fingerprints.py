"""Fingerprints of weights."""

from lightning_bnf.runtime.fingerprints import weights_fingerprint


def test_the_fingerprint_tells_weights_apart(tiny_llama):
    before = weights_fingerprint(tiny_llama)
    assert before == weights_fingerprint(tiny_llama)
    weight = tiny_llama.model.norm.weight.data
    weight[0] += 1
    try:
        assert weights_fingerprint(tiny_llama) != before
    finally:
        weight[0] -= 1
