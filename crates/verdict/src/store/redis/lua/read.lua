-- KEYS: records of one older store key.

return read(KEYS)
