"""Publishing a run: reject limits, drift, the gate, the manifest, the summary."""
