-- Reservations: what requests in progress hold, and what is remembered of settled ones.
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

local function reservation_of(id)
  local record = redis.call('HGET', reservations, id)
  return record and cjson.decode(record)
end

-- The end of a reservation: slot and reservation are free, and the one record of its usage is written.
local function finish(id, reservation, usage)
  redis.call('HDEL', reservations, id)
  redis.call('ZREM', slots, id)
  redis.call('ZREM', slots .. ':' .. reservation.model, id)
  if redis.call('ZCARD', slots) == 0 then
    redis.call('ZREM', due, key_id)
  end
  reserve(reservation.model, -reservation.estimate - reservation.output)
  if not reservation.counted then
    count('requests', reservation.model, 1)
  end
  for _, counters in pairs(periods) do
    redis.call('EXPIRE', counters, USAGE_SECONDS)
  end
  count('cached', reservation.model, usage.cached)
  count('reasoning', reservation.model, usage.reasoning)
  redis.call('XADD', shard .. ':usage', 'MAXLEN', '~', ask.stream_length, '*',
    'id', id, 'request_id', reservation.request_id, 'key', key_id, 'owner', reservation.owner, 'model', reservation.model,
    'prompt_tokens', whole(reservation.prompt), 'completion_tokens', whole(reservation.completion),
    'cached_tokens', whole(usage.cached), 'reasoning_tokens', whole(usage.reasoning), 'outcome', usage.outcome)
end

-- No reservation ends later than its length from now. One that does was renewed before the clock went back.
local function shorten_reservations()
  local length = ask.duration or number_of('lease')
  if length == 0 then
    length = MINUTE
  end
  for _, id in ipairs(redis.call('ZRANGEBYSCORE', slots, '(' .. whole(now + length), '+inf')) do
    local reservation = reservation_of(id)
    local ends = now + (reservation and reservation.length or length)
    if reservation and tonumber(redis.call('ZSCORE', slots, id)) > ends then
      redis.call('ZADD', slots, whole(ends), id)
      redis.call('ZADD', slots .. ':' .. reservation.model, whole(ends), id)
      redis.call('ZADD', due, whole(ends), key_id)
    elseif not reservation then
      redis.call('ZREM', slots, id)
    end
  end
end

-- Reservations that nobody renews belonged to a gateway that is gone. What they were charged so far stays.
local function reap()
  for _, id in ipairs(redis.call('ZRANGEBYSCORE', slots, '-inf', whole(now))) do
    local reservation = reservation_of(id)
    if not reservation then
      redis.call('ZREM', slots, id)
    elseif id ~= ask.id then
      finish(id, reservation, {cached = 0, reasoning = 0, outcome = 'lost'})
      remember(id, reservation.prompt, reservation.completion, false)
    end
  end
end

-- A reservation for a request that has none: a new one, or one that was lost with a gateway's pause or Redis's memory.
local function new_reservation(memory)
  return {
    model = ask.model, owner = ask.owner, request_id = ask.request_id, counted = memory and true or false,
    prompt = memory and memory.prompt or 0, completion = memory and memory.completion or 0, estimate = 0, output = 0,
  }
end

local function hold(id, reservation)
  local ends = now + ask.duration
  reservation.length = ask.duration
  redis.call('HSET', state, 'lease', whole(ask.duration))
  redis.call('HSET', reservations, id, cjson.encode(reservation))
  redis.call('ZADD', slots, whole(ends), id)
  redis.call('ZADD', slots .. ':' .. reservation.model, whole(ends), id)
  redis.call('ZADD', due, whole(ends), key_id)
  redis.call('EXPIRE', state, IDLE_SECONDS)
end
