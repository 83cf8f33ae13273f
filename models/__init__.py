"""ResNet-152 and its relatives for 3 and 2L channels, and late fusion of the two streams."""
