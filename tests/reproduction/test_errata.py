"""The errata's checks, by what they print."""

from lightning_bnf.reproduction.errata import errata_table


def test_every_erratum_has_the_outcome_of_its_check() -> None:
    """ln 16 = 2.77, log10 16 = 1.20. Of three tokens alike the gradient of log pi is 1 - 1/3 on the preferred one."""
    checks = errata_table()["check"]
    assert checks["Section 2.3"] == "ln(0.8 / 0.05) = 2.77, log10 = 1.20"
    assert checks["Appendix B, return"].endswith("logit by -0.67, down Eq. 4's by +0.67")
    printed, with_factor = checks["Table 2, SimPO"].split(": ")[1].split(" as printed, ")
    assert float(printed) > 0.1
    assert float(with_factor.split()[0]) < 1e-10
    assert "Wild-Bench / Arena-Hard is 4." in checks["Table 5"]
