"""What the Pyramidal Recurrent Unit is: configuration, layers, language model, vocabulary, file contracts."""
