"""What differs between deployments of this app, from the environment."""

import environ

__all__ = ["PARTNER_URL", "RELEASE"]

env = environ.Env()

#: Three releases in one checkout. In yours, the next release is the next commit.
RELEASE = env.int("EXAMPLE_RELEASE", default=3)

#: Who is told of each release; nobody where it is empty.
PARTNER_URL = env.str("PARTNER_URL", default="")
