"""A back end whose connections come from a pool that is not Django's, as in dj_db_conn_pool."""
