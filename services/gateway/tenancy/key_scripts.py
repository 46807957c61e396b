"""The Lua scripts of keys in Redis. Each operation on a key's record is one script, which rejects a revoked key.

Each change of a key has an entry for the audit log, which its script writes.
"""

from __future__ import annotations

from typing import Final

from services.gateway.redis import audit_log
from services.gateway.redis.script import Script

FIND: Final = Script("""
local id = redis.call('GET', KEYS[1])
if not id then
  return {}
end
local record = string.match(KEYS[1], '^.-}:') .. 'key:' .. id
-- The record of a revoked key expires, that of a valid one does not.
return redis.call('TTL', record) < 0 and redis.call('HGETALL', record) or {}
""")
_OF_RECORD: Final = """
local record = KEYS[1]
local shard, id = string.match(record, '^(.-}):key:(.+)$')
local secrets = shard .. ':secrets:' .. id
local now = tonumber(redis.call('TIME')[1])

local function secret_name(digest)
  return shard .. ':secret:' .. digest
end

local function state()
  if redis.call('EXISTS', record) == 0 then
    return 'absent'
  elseif redis.call('HEXISTS', record, 'pending') == 1 then
    return 'pending'
  elseif redis.call('HEXISTS', record, 'revoked') == 1 or redis.call('TTL', record) >= 0 then
    -- Earlier versions marked a revoked key only by the expiry of its record.
    return 'revoked'
  end
  return 'live'
end

-- Have a secret expire at `ends` (0: never), or with its key.
local function expire_secret(digest, ends)
  redis.call('HSET', secrets, digest, ends)
  local soonest = tonumber(redis.call('HGET', record, 'expires') or '') or 0
  if ends ~= 0 and (soonest == 0 or ends < soonest) then
    soonest = ends
  end
  if soonest == 0 then
    redis.call('PERSIST', secret_name(digest))
  else
    redis.call('EXPIREAT', secret_name(digest), soonest)
  end
end

local function add_secret(digest)
  redis.call('SET', secret_name(digest), id)
  expire_secret(digest, 0)
end
"""
_OF_CHANGE: Final = _OF_RECORD + audit_log.APPEND + "local log = shard .. ':audit'\n"
READ: Final = Script(
    _OF_RECORD
    + """
local current = state()
local revoked = ''
if current == 'revoked' then
  revoked = redis.call('HGET', record, 'revoked') or tostring(now + redis.call('TTL', record) - ARGV[1])
end
return {current, revoked, redis.call('HGETALL', record)}
"""
)
RESERVE: Final = Script(
    _OF_RECORD
    + """
redis.call('HSET', record, 'pending', '1', unpack(ARGV, 2))
redis.call('EXPIRE', record, ARGV[1])
"""
)
GIVE_UP: Final = Script(_OF_RECORD + "return state() == 'pending' and redis.call('DEL', record)")
ACTIVATE: Final = Script(
    _OF_CHANGE
    + """
if state() == 'pending' then
  redis.call('HDEL', record, 'pending')
  redis.call('PERSIST', record)
  add_secret(ARGV[1])
  audit(log, ARGV[2])
end
return state()
"""
)
EXPORT: Final = Script(_OF_RECORD + "return {state(), redis.call('HGETALL', record), redis.call('HGETALL', secrets)}")
RESERVE_NEW: Final = Script(
    _OF_RECORD
    + """
local current = state()
if current ~= 'absent' then
  return current
end
redis.call('HSET', record, 'pending', '1', unpack(ARGV, 2))
redis.call('EXPIRE', record, ARGV[1])
return 'reserved'
"""
)
ACTIVATE_WITH: Final = Script(
    _OF_CHANGE
    + """
-- ARGV has the entry of the audit log, and the digests of secrets, each followed by its expiry.
if state() == 'pending' then
  redis.call('HDEL', record, 'pending')
  redis.call('PERSIST', record)
  audit(log, ARGV[1])
  for index = 2, #ARGV, 2 do
    local digest, ends = ARGV[index], tonumber(ARGV[index + 1])
    if ends == 0 or ends > now then
      redis.call('SET', secret_name(digest), id)
      expire_secret(digest, ends)
    end
  end
end
return state()
"""
)
CHANGE: Final = Script(
    _OF_CHANGE
    + """
-- ARGV has the digest of the record that was read, the entry of the audit log or nothing, and the changed fields.
local current = state()
if current ~= 'live' then
  return current
elseif redis.sha1hex(table.concat(redis.call('HGETALL', record), '\\0')) ~= ARGV[1] then
  return 'changed'
end
local expires = redis.call('HGET', record, 'expires')
redis.call('HSET', record, unpack(ARGV, 3))
if ARGV[2] ~= '' then
  audit(log, ARGV[2])
end
if redis.call('HGET', record, 'expires') ~= expires then
  local all = redis.call('HGETALL', secrets)
  for index = 1, #all, 2 do
    expire_secret(all[index], tonumber(all[index + 1]))
  end
end
return current
"""
)
ROTATE: Final = Script(
    _OF_CHANGE
    + """
local current = state()
-- An earlier attempt may have succeeded although its reply was lost.
if current ~= 'live' or redis.call('HEXISTS', secrets, ARGV[1]) == 1 then
  return current
end
local expires = tonumber(redis.call('HGET', record, 'expires') or '') or 0
if expires ~= 0 and expires <= now then
  return 'expired'
end
local all = redis.call('HGETALL', secrets)
for index = 1, #all, 2 do
  local digest, ends = all[index], tonumber(all[index + 1])
  if ends ~= 0 and ends <= now then
    redis.call('HDEL', secrets, digest)
    redis.call('DEL', secret_name(digest))
  else
    local soonest = math.max(1, now + tonumber(ARGV[2]))
    expire_secret(digest, ends == 0 and soonest or math.min(ends, soonest))
  end
end
add_secret(ARGV[1])
audit(log, ARGV[3])
return current
"""
)
REVOKE: Final = Script(
    _OF_CHANGE
    + """
local current = state()
if current == 'live' or current == 'revoked' then
  for _, digest in ipairs(redis.call('HKEYS', secrets)) do
    redis.call('DEL', secret_name(digest))
  end
  redis.call('DEL', secrets)
  if current == 'live' then
    redis.call('HSET', record, 'revoked', now)
    redis.call('EXPIRE', record, ARGV[1])
    audit(log, ARGV[2])
  else
    -- A write, so that waiting for replicas includes the earlier revocation.
    redis.call('EXPIRE', record, redis.call('TTL', record))
  end
end
return current
"""
)
CLAIM: Final = Script("""
-- Assigns a name to a key, unless another key than `ended`, which is known to have ended, has it. Returns its key.
local name, id, ended = ARGV[1], ARGV[2], ARGV[3]
local owner = redis.call('HGET', KEYS[1], name)
if owner and owner ~= id and owner ~= ended then
  return owner
end
redis.call('HSET', KEYS[1], name, id)
return id
""")
RELEASE: Final = Script("""
return redis.call('HGET', KEYS[1], ARGV[1]) == ARGV[2] and redis.call('HDEL', KEYS[1], ARGV[1])
""")
