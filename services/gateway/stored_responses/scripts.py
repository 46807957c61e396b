"""The Lua scripts of stored responses. Each is atomic, and each first forgets what has expired.

All names have one hash tag, so that a script can decide about the bytes of all keys together:

    vilix:{responses}:r:ID       a hash: owner, status, document, input, lease (ms), holder, since (ms)
    vilix:{responses}:e:ID       a list of events, whose index is their sequence number
    vilix:{responses}:sizes      "OWNER BYTES" of each response, by id
    vilix:{responses}:bytes      the bytes of each owner, and of all (`*`)
    vilix:{responses}:expiry     ids by the time at which they expire (ms)
    vilix:{responses}:owned:KEY  the ids of a key's responses

The first two expire by themselves; the rest, which has no content, is swept by the scripts.
"""

from __future__ import annotations

from typing import Final

from services.gateway.redis.script import Script

_PRELUDE: Final = """
local p = KEYS[1]
local time = redis.call('TIME')
local now = tonumber(time[1]) * 1000 + math.floor(tonumber(time[2]) / 1000)

local function record(id) return p .. ':r:' .. id end
local function log(id) return p .. ':e:' .. id end

local function forget(id)
  local size = redis.call('HGET', p .. ':sizes', id)
  if size then
    local owner, bytes = string.match(size, '^(%S+) (%d+)$')
    if redis.call('HINCRBY', p .. ':bytes', owner, -bytes) <= 0 then
      redis.call('HDEL', p .. ':bytes', owner)
    end
    if redis.call('HINCRBY', p .. ':bytes', '*', -bytes) <= 0 then
      redis.call('HDEL', p .. ':bytes', '*')
    end
    redis.call('HDEL', p .. ':sizes', id)
    redis.call('SREM', p .. ':owned:' .. owner, id)
  end
  redis.call('ZREM', p .. ':expiry', id)
  redis.call('DEL', record(id), log(id))
end

for _, id in ipairs(redis.call('ZRANGEBYSCORE', p .. ':expiry', '-inf', now, 'LIMIT', 0, 100)) do
  forget(id)
end

-- Whether `more` bytes fit the budgets of a key and of all.
local function fits(owner, more, of_key, of_all)
  if more <= 0 then
    return true
  end
  local used = tonumber(redis.call('HGET', p .. ':bytes', owner) or '0')
  local all = tonumber(redis.call('HGET', p .. ':bytes', '*') or '0')
  return used + more <= tonumber(of_key) and all + more <= tonumber(of_all)
end

local function account(id, owner, more)
  local size = redis.call('HGET', p .. ':sizes', id)
  local bytes = size and tonumber(string.match(size, ' (%d+)$')) or 0
  redis.call('HSET', p .. ':sizes', id, owner .. ' ' .. string.format('%d', bytes + more))
  redis.call('HINCRBY', p .. ':bytes', owner, more)
  redis.call('HINCRBY', p .. ':bytes', '*', more)
end

local function push(id, first)
  local size = 0
  for index = first, #ARGV do
    redis.call('RPUSH', log(id), ARGV[index])
    size = size + #ARGV[index]
  end
  if size > 0 then
    redis.call('PEXPIRE', log(id), redis.call('PTTL', record(id)))
  end
end

-- The bytes that a packed value counts: those of its JSON, whose number it begins with, if they are more.
local function weight(packed)
  return math.max(#packed, tonumber(string.match(packed, '^(%d+):')) or 0)
end

local function size_of(first)
  local size = 0
  for index = first, #ARGV do
    size = size + #ARGV[index]
  end
  return size
end

local ended = {completed = true, incomplete = true, failed = true, cancelled = true}
"""
OVERHEAD: Final = 2048
"""The bytes that Redis needs for a response besides its content, and for its end if there is no space, roughly."""
READ_BYTES: Final = 2**20
"""The most bytes of the events of one reply, which has at least one event."""

CREATE: Final = Script(
    _PRELUDE
    + """
local id, owner, seconds, of_key, of_all, lease, holder, status, document, input = unpack(ARGV, 1, 10)
local size = weight(document) + weight(input) + size_of(11) + """
    + str(OVERHEAD)
    + """
if not fits(owner, size, of_key, of_all) then
  return 'full'
end
local ends = now + tonumber(seconds) * 1000
redis.call('HSET', record(id), 'owner', owner, 'status', status, 'document', document, 'input', input,
  'lease', string.format('%d', now + tonumber(lease)), 'holder', holder)
redis.call('PEXPIREAT', record(id), ends)
redis.call('ZADD', p .. ':expiry', ends, id)
redis.call('SADD', p .. ':owned:' .. owner, id)
account(id, owner, size)
push(id, 11)
return 'stored'
"""
)
APPEND: Final = Script(
    _PRELUDE
    + """
local id, holder, lease, of_key, of_all, status, document, length = unpack(ARGV, 1, 8)
local owner, held, before = unpack(redis.call('HMGET', record(id), 'owner', 'holder', 'status'))
if not owner then
  return 'gone'
end
if held ~= holder or ended[before] then
  return 'ended'
end
-- A write whose reply was lost has come already.
local first = 9 + redis.call('LLEN', log(id)) - tonumber(length)
local size = size_of(first)
if document ~= '' then
  size = size + weight(document) - weight(redis.call('HGET', record(id), 'document'))
end
if not fits(owner, size, of_key, of_all) then
  return 'full'
end
account(id, owner, size)
push(id, first)
redis.call('HSET', record(id), 'lease', string.format('%d', now + tonumber(lease)))
if document ~= '' then
  redis.call('HSET', record(id), 'document', document)
end
if status == '' and before == 'queued' and #ARGV >= first then
  -- Its generation has begun.
  status = 'in_progress'
end
if status ~= '' then
  redis.call('HSET', record(id), 'status', status)
end
return 'stored'
"""
)
END: Final = Script(
    _PRELUDE
    + """
local id, length, only_without_lease, of_key, of_all, status, document, short, short_event = unpack(ARGV, 1, 9)
local owner, before, lease = unpack(redis.call('HMGET', record(id), 'owner', 'status', 'lease'))
if not owner then
  return 'gone'
end
if ended[before] then
  return 'ended'
end
if redis.call('LLEN', log(id)) ~= tonumber(length) then
  return 'changed'
end
if only_without_lease == '1' and tonumber(lease) > now then
  return 'held'
end
local had = weight(redis.call('HGET', record(id), 'document'))
local size = size_of(10) + weight(document) - had
if fits(owner, size, of_key, of_all) then
  push(id, 10)
else
  document = short
  size = #short_event + weight(short) - had
  redis.call('RPUSH', log(id), short_event)
  redis.call('PEXPIRE', log(id), redis.call('PTTL', record(id)))
end
account(id, owner, size)
redis.call('HSET', record(id), 'status', status, 'document', document, 'holder', '')
return 'stored'
"""
)
"""Ends a response that another gateway generates, or has generated before it died.

If it does not fit, the shorter document and the shorter event are stored, for which OVERHEAD is reserved.
"""
READ: Final = Script(
    _PRELUDE
    + """
local id, owner, first, most, with_document, with_input = unpack(ARGV, 1, 6)
local found = redis.call('HMGET', record(id), 'owner', 'status', 'lease')
if found[1] ~= owner then
  return {}
end
local document = with_document == '1' and redis.call('HGET', record(id), 'document') or ''
local input = with_input == '1' and redis.call('HGET', record(id), 'input') or ''
local events = {}
if tonumber(most) > 0 then
  local size = 0
  for index, event in ipairs(redis.call('LRANGE', log(id), first, tonumber(first) + tonumber(most) - 1)) do
    size = size + #event
    if index > 1 and size > """
    + str(READ_BYTES)
    + """ then
      break
    end
    events[index] = event
  end
end
local lost = (not ended[found[2]] and tonumber(found[3]) <= now) and 1 or 0
return {found[2], document, input, lost, redis.call('LLEN', log(id)), events}
"""
)
DELETE: Final = Script(
    _PRELUDE
    + """
if redis.call('HGET', record(ARGV[1]), 'owner') ~= ARGV[2] then
  return 0
end
forget(ARGV[1])
return 1
"""
)
PURGE: Final = Script(
    _PRELUDE
    + """
local ids = redis.call('SRANDMEMBER', p .. ':owned:' .. ARGV[1], 100)
for _, id in ipairs(ids) do
  forget(id)
  -- Also one whose size a Redis that evicts has lost.
  redis.call('SREM', p .. ':owned:' .. ARGV[1], id)
end
return #ids
"""
)
"""Deletes up to a hundred responses of a key, and returns how many."""
OWNERS: Final = Script(
    _PRELUDE
    + """
local owners = {}
for _, owner in ipairs(redis.call('HKEYS', p .. ':bytes')) do
  if owner ~= '*' then
    owners[#owners + 1] = owner
  end
end
return owners
"""
)
USED: Final = Script(_PRELUDE + "return tonumber(redis.call('HGET', p .. ':bytes', '*') or '0')")
