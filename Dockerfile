# The image of Beam's workers (and of the driver): the Beam harness of the pinned version, fusefeed and what it needs.
FROM apache/beam_python3.11_sdk:2.77.0
WORKDIR /opt/fusefeed
COPY setup.py pyproject.toml constraints.txt README.md ./
COPY pipelines pipelines
COPY transforms transforms
COPY model model
RUN pip install --no-cache-dir --constraint constraints.txt .
