"""The processor time of a token and of a short request, in the gateway alone and on the whole path."""
