"""PoS-BERT: masked language modelling split into part-of-speech tasks."""
