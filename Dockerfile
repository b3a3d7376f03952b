# Gadgetron's published runtime image with CUDA, and scoremri in its environment.
FROM ghcr.io/gadgetron/gadgetron/gadgetron_ubuntu_rt_cuda:latest

ENV PREFIX=/opt/conda/envs/gadgetron
COPY --chown=1000:conda setup.cfg pyproject.toml README.md LICENSE NOTICE /opt/scoremri/
COPY --chown=1000:conda scoremri_core /opt/scoremri/scoremri_core
COPY --chown=1000:conda gadgets /opt/scoremri/gadgets
COPY --chown=1000:conda config /opt/scoremri/config
RUN $PREFIX/bin/python -m pip install --no-cache-dir "/opt/scoremri[gpu]" \
    && cp /opt/scoremri/config/*.xml $PREFIX/share/gadgetron/config/
