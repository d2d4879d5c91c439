"""Offline preference alignment of language models with the Bidirectional Negative Feedback loss."""

import logging

__version__ = "0.1.0"

# At import it tells everybody that it lacks a kernel for 4-bit products on CPUs, one that training cannot use.
logging.getLogger("bitsandbytes.backends.cpu.ops").addFilter(lambda record: "gemm_4bit_forward" not in record.msg)
