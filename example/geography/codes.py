"""The codes of countries, in memory: which country a request means, without a query."""

#: Alpha-2 code by alpha-2, alpha-3 and numeric code.
alpha_2: dict[str, str] = {}
