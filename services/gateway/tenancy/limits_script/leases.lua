-- Leases: what requests in progress hold, and what is remembered of settled ones.
local function settled_name(id)
  return state .. ':settled:' .. id
end

-- What is remembered of a settled request, so that a settlement that is tried again, or comes late, changes nothing twice.
local function remember(id, prompt, completion, final)
  local memory = cjson.encode({prompt = prompt, completion = completion, final = final})
  redis.call('SET', settled_name(id), memory, 'EX', 600)
end

local function remembered(id)
  local memory = redis.call('GET', settled_name(id))
  return memory and cjson.decode(memory)
end

local function lease_of(id)
  local record = redis.call('HGET', leases, id)
  return record and cjson.decode(record)
end

-- The end of a lease: slot and reservation are free, and the one record of its usage is written.
local function finish(id, lease, usage)
  redis.call('HDEL', leases, id)
  redis.call('ZREM', slots, id)
  redis.call('ZREM', slots .. ':' .. lease.model, id)
  if redis.call('ZCARD', slots) == 0 then
    redis.call('ZREM', due, key_id)
  end
  reserve(lease.model, -lease.estimate - lease.output)
  if not lease.counted then
    count('requests', lease.model, 1)
  end
  for _, counters in pairs(periods) do
    redis.call('EXPIRE', counters, USAGE_SECONDS)
  end
  count('cached', lease.model, usage.cached)
  count('reasoning', lease.model, usage.reasoning)
  redis.call('XADD', shard .. ':usage', 'MAXLEN', '~', ask.stream_length, '*',
    'id', id, 'request_id', lease.request_id, 'key', key_id, 'owner', lease.owner, 'model', lease.model,
    'prompt_tokens', whole(lease.prompt), 'completion_tokens', whole(lease.completion),
    'cached_tokens', whole(usage.cached), 'reasoning_tokens', whole(usage.reasoning), 'outcome', usage.outcome)
end

-- No lease ends later than its length from now. One that does was renewed before the clock went back.
local function shorten_leases()
  local length = ask.lease or number_of('lease')
  if length == 0 then
    length = MINUTE
  end
  for _, id in ipairs(redis.call('ZRANGEBYSCORE', slots, '(' .. whole(now + length), '+inf')) do
    local lease = lease_of(id)
    local ends = now + (lease and lease.length or length)
    if lease and tonumber(redis.call('ZSCORE', slots, id)) > ends then
      redis.call('ZADD', slots, whole(ends), id)
      redis.call('ZADD', slots .. ':' .. lease.model, whole(ends), id)
      redis.call('ZADD', due, whole(ends), key_id)
    elseif not lease then
      redis.call('ZREM', slots, id)
    end
  end
end

-- Leases that nobody renews belonged to a gateway that is gone. What they were charged so far stays.
local function reap()
  for _, id in ipairs(redis.call('ZRANGEBYSCORE', slots, '-inf', whole(now))) do
    local lease = lease_of(id)
    if not lease then
      redis.call('ZREM', slots, id)
    elseif id ~= ask.id then
      finish(id, lease, {cached = 0, reasoning = 0, outcome = 'lost'})
      remember(id, lease.prompt, lease.completion, false)
    end
  end
end

-- A lease for a request that has none: a new one, or one that was lost with a gateway's pause or Redis's memory.
local function new_lease(memory)
  return {
    model = ask.model, owner = ask.owner, request_id = ask.request_id, counted = memory and true or false,
    prompt = memory and memory.prompt or 0, completion = memory and memory.completion or 0, estimate = 0, output = 0,
  }
end

local function hold(id, lease)
  local ends = now + ask.lease
  lease.length = ask.lease
  redis.call('HSET', state, 'lease', whole(ask.lease))
  redis.call('HSET', leases, id, cjson.encode(lease))
  redis.call('ZADD', slots, whole(ends), id)
  redis.call('ZADD', slots .. ':' .. lease.model, whole(ends), id)
  redis.call('ZADD', due, whole(ends), key_id)
  redis.call('EXPIRE', state, IDLE_SECONDS)
end
