# Two images:
#
#   docker build -t scoremri:0.1.0 .                      standalone server, `scoremri serve`
#   docker build --target gadgetron -t scoremri-gadgetron .   Gadgetron with scoremri as a node
#
# Dependencies are installed before the source is copied, so that a change of the source does not
# download them again.

# Image index of python:3.12.15-slim-bookworm.
ARG PYTHON=python:3.12-slim-bookworm@sha256:54c85f3c47607a77f32adec749d3c81d1348bf25833671f512b26a9b6d778cb3
# Gadgetron publishes only the tag `latest`; for reproducible builds, pin it by digest:
# --build-arg GADGETRON=...@sha256:...
ARG GADGETRON=ghcr.io/gadgetron/gadgetron/gadgetron_ubuntu_rt_cuda:latest


# Lists of the dependencies in setup.cfg, so that the layers change only with them.
FROM ${PYTHON} AS requirements
WORKDIR /lists
COPY setup.cfg .
RUN python -c "import configparser, pathlib; \
        setup = configparser.ConfigParser(); \
        setup.read('setup.cfg'); \
        extras = setup['options.extras_require']; \
        core = [setup['options']['install_requires'], extras['mrd'], extras['status']]; \
        pathlib.Path('all.txt').write_text('\n'.join(core)); \
        pathlib.Path('gpu.txt').write_text(extras['gpu'])"


FROM ${PYTHON} AS wheel
WORKDIR /source
COPY setup.cfg pyproject.toml README.md LICENSE NOTICE ./
COPY scoremri_core scoremri_core
COPY gadgets gadgets
COPY config config
RUN pip wheel --no-cache-dir --no-deps --wheel-dir /wheels .


# Gadgetron's Python runs the node, so scoremri is installed into that environment, with its NumPy
# 1.26. CuPy 14 (extra `gpu`, CUDA 13) needs NumPy 2; CuPy 13 and torch 2.10 do not, and are for
# CUDA 12, as this Gadgetron.
FROM ${GADGETRON} AS gadgetron
ENV PREFIX=/opt/conda/envs/gadgetron
USER 1000
COPY --from=requirements --chown=1000:conda /lists/all.txt /opt/scoremri/
RUN "$PREFIX/bin/python" -c "import numpy; print('numpy==' + numpy.__version__)" \
        > /opt/scoremri/kept.txt \
    && "$PREFIX/bin/python" -m pip install --no-cache-dir -c /opt/scoremri/kept.txt \
        -r /opt/scoremri/all.txt "torch<2.11" "cupy-cuda12x>=13,<14"
# The package installs its chains into share/gadgetron/config.
RUN --mount=type=bind,from=wheel,source=/wheels,target=/wheels \
    "$PREFIX/bin/python" -m pip install --no-cache-dir --no-deps /wheels/*.whl \
    && "$PREFIX/bin/scoremri" check score_recon.xml
EXPOSE 9002
# The query of Gadgetron's tests.
HEALTHCHECK --interval=30s --timeout=10s --start-period=60s \
    CMD ["/opt/conda/envs/gadgetron/bin/gadgetron_ismrmrd_client", "-q", "-Q", "gadgetron::info"]


# NumPy 2, torch and CuPy for CUDA 13.
FROM ${PYTHON} AS serve
RUN useradd --create-home --uid 10001 scoremri
COPY --from=requirements /lists /tmp/lists
RUN pip install --no-cache-dir -r /tmp/lists/all.txt -r /tmp/lists/gpu.txt
RUN --mount=type=bind,from=wheel,source=/wheels,target=/wheels \
    pip install --no-cache-dir --no-deps /wheels/*.whl
# By number, so that Kubernetes can check that it is not root.
USER 10001
WORKDIR /home/scoremri
# Scans and status.
EXPOSE 9002 9003
HEALTHCHECK --interval=30s --timeout=10s --start-period=60s \
    CMD ["python", "-c", "import urllib.request as http; \
http.build_opener(http.ProxyHandler({})).open('http://127.0.0.1:9003/healthz', timeout=8)"]
ENTRYPOINT ["scoremri"]
CMD ["serve", "--host", "0.0.0.0", "--status-port", "9003"]
