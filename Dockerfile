# syntax=docker/dockerfile:1

# ---- builder: a wheel from the source, and a virtual environment that holds it and its dependencies
FROM python:3.13-slim AS builder
ENV PIP_DISABLE_PIP_VERSION_CHECK=1 PIP_NO_CACHE_DIR=1
WORKDIR /src
COPY pyproject.toml README.md LICENSE ./
COPY src ./src
RUN python -m pip wheel --quiet --no-deps --wheel-dir /wheels . \
 && python -m venv /opt/smarthost \
 && /opt/smarthost/bin/pip install --quiet /wheels/*.whl

# ---- the image: no compiler, no source, no root
FROM python:3.13-slim
RUN groupadd --system --gid 587 smarthost \
 && useradd --system --uid 587 --gid smarthost --home-dir /var/lib/smarthost --shell /usr/sbin/nologin smarthost \
 && install -d -o smarthost -g smarthost -m 0700 /var/lib/smarthost
COPY --from=builder /opt/smarthost /opt/smarthost
# It has no secrets; one that is mounted in its place and has some is best root:587, mode 0640.
COPY conf/docker.toml /etc/smarthost/smarthost.toml
ENV PATH=/opt/smarthost/bin:$PATH \
    PYTHONUNBUFFERED=1 \
    SMARTHOST_CONFIG=/etc/smarthost/smarthost.toml

USER smarthost
WORKDIR /var/lib/smarthost
VOLUME /var/lib/smarthost

# 587 is below 1024, yet needs no capability: container runtimes set net.ipv4.ip_unprivileged_port_start to 0 in the
# container's network namespace. With --network=host, or where a runtime leaves it at 1024, add
# --cap-add=NET_BIND_SERVICE or choose another port in the configuration.
EXPOSE 587 9587

# Ready or not, /healthz says whether the relay is alive: it fails when the spool cannot be written.
HEALTHCHECK --interval=30s --timeout=5s --start-period=20s --retries=3 \
  CMD ["python", "-c", "import urllib.request as u; u.urlopen('http://127.0.0.1:9587/healthz', timeout=4)"]

# SIGTERM drains and exits 0 within shutdown_timeout (8 s); the runtime's usual 10 s are enough.
STOPSIGNAL SIGTERM
ENTRYPOINT ["smarthost"]
CMD ["serve"]
