"""Settings of a gunicorn that preloads an application for gevent: patched before it is loaded."""

from gevent import monkey

monkey.patch_all()
