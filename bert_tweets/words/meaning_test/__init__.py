"""Does a model tell apart the meanings of a word? WiC and TempoWiC."""
