"""The multimodal autoencoder: its data, training, evaluation and export. TensorFlow and Keras 3, no Beam."""
