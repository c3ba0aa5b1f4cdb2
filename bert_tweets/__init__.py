"""bert_tweets: adapt a pre-trained BERT to tweets, and get back vectors of chosen words."""

__version__ = "0.1.0"
