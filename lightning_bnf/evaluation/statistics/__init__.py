"""What a comparison of methods can say: paired differences, corrections, power, and coverage of the intervals."""
