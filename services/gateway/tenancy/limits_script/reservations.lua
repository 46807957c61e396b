-- Reservations of running requests, and the memory of settled ones.
local function settled_name(id)
  return state .. ':settled:' .. id
end

-- Remember a settled request, so that a repeated or late settlement changes nothing twice.
local function remember(id, reservation, final)
  local memory = cjson.encode({
    prompt = reservation.prompt, completion = reservation.completion, cached = reservation.cached,
    cost = reservation.cost, final = final,
  })
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

-- Return what is known of a request whose gateway has died, as tenancy/receipt.py writes it.
local function receipt_of_lost(reservation)
  return cjson.encode({
    id = reservation.request_id, created = reservation.at, model = reservation.model, outcome = 'lost',
    usage = {
      prompt_tokens = reservation.prompt, completion_tokens = reservation.completion,
      cached_tokens = reservation.cached or 0,
      reasoning_tokens = 0,
    },
    cost = reservation.cost, currency = reservation.prices and reservation.prices.currency,
    decimals = reservation.prices and reservation.prices.decimals,
  })
end

-- Release money that no reservation holds: a gateway of an earlier version that ends the reservation of a dead one does
-- not release it. While another request of the key runs, it stays reserved.
local function release_leaked_money()
  if redis.call('ZCARD', slots) == 0 and redis.call('HEXISTS', state, 'reserved_cost') == 1 then
    for _, field in ipairs(redis.call('HKEYS', state)) do
      if field == 'reserved_cost' or string.sub(field, 1, 14) == 'reserved_cost:' then
        redis.call('HDEL', state, field)
      end
    end
  end
end

-- End a reservation: release its slot and its tokens, and write its only usage record.
local function finish(id, reservation, usage)
  redis.call('HDEL', reservations, id)
  redis.call('ZREM', slots, id)
  redis.call('ZREM', slots .. ':' .. reservation.model, id)
  if redis.call('ZCARD', slots) == 0 then
    redis.call('ZREM', due, key_id)
  end
  reserve(reservation.model, -reservation.estimate - reservation.output)
  reservation.estimate, reservation.output, reservation.cached = 0, 0, usage.cached
  account(reservation)
  if not reservation.counted then
    count('requests', reservation.model, 1)
  end
  -- The last use of the key, for key_activity.py.
  redis.call('HSET', periods.monthly, 'last', time[1])
  for _, counters in pairs(periods) do
    redis.call('EXPIRE', counters, USAGE_SECONDS)
  end
  count('cached', reservation.model, usage.cached - (reservation.counted_cached or 0))
  count('reasoning', reservation.model, usage.reasoning)
  local record = {
    'id', id, 'request_id', reservation.request_id, 'key', key_id, 'owner', reservation.owner,
    'model', reservation.model, 'prompt_tokens', integer(reservation.prompt),
    'completion_tokens', integer(reservation.completion), 'cached_tokens', integer(usage.cached),
    'reasoning_tokens', integer(usage.reasoning), 'outcome', usage.outcome,
  }
  if reservation.prices then
    local prices = reservation.prices
    for _, each in ipairs({'cost', integer(reservation.cost), 'currency', prices.currency or '',
      'decimals', integer(prices.decimals or 0)}) do
      record[#record + 1] = each
    end
  end
  redis.call('XADD', shard .. ':usage', 'MAXLEN', '~', request.stream_length, '*', unpack(record))
  local receipt = usage.outcome == 'lost' and receipt_of_lost(reservation) or usage.receipt
  if reservation.receipts and receipt and receipt ~= '' then
    keep_receipt(shard .. ':receipts:' .. key_id, now / 1000000, reservation.request_id, receipt, reservation.receipts)
  end
end

-- Shorten reservations that expire later than their duration from now: they were renewed before the clock went back.
local function shorten_reservations()
  local duration = request.duration or number_of('lease')
  if duration == 0 then
    duration = MINUTE
  end
  for _, id in ipairs(redis.call('ZRANGEBYSCORE', slots, '(' .. integer(now + duration), '+inf')) do
    local reservation = reservation_of(id)
    local ends = now + (reservation and reservation.length or duration)
    if reservation and tonumber(redis.call('ZSCORE', slots, id)) > ends then
      redis.call('ZADD', slots, integer(ends), id)
      redis.call('ZADD', slots .. ':' .. reservation.model, integer(ends), id)
      redis.call('ZADD', due, integer(ends), key_id)
    elseif not reservation then
      redis.call('ZREM', slots, id)
    end
  end
end

-- End expired reservations, whose gateway has died. Tokens that were charged so far stay charged. The outcome is
-- Outcome.LOST of record.py.
local function end_expired_reservations()
  for _, id in ipairs(redis.call('ZRANGEBYSCORE', slots, '-inf', integer(now))) do
    local reservation = reservation_of(id)
    if not reservation then
      redis.call('ZREM', slots, id)
    elseif id ~= request.id then
      finish(id, reservation, {cached = reservation.cached or 0, reasoning = 0, outcome = 'lost'})
      remember(id, reservation, false)
    end
  end
end

-- Return a reservation for a request that has none: a new request, or one whose reservation expired during a pause of
-- its gateway or was lost by Redis.
local function new_reservation(memory)
  local cached, cost = memory and memory.cached, memory and memory.cost
  if memory and request.prices and not cost then
    -- A gateway of an earlier version has ended the reservation and remembered its tokens alone.
    cached = cached or math.min(request.cached or 0, memory.prompt)
    cost = cost_of(request.prices, memory.prompt, cached, memory.completion)
  end
  return {
    model = request.model, owner = request.owner, request_id = request.request_id, counted = memory and true or false,
    prompt = memory and memory.prompt or 0, completion = memory and memory.completion or 0, estimate = 0, output = 0,
    receipts = request.receipts, at = request.receipts and tonumber(time[1]), prices = request.prices,
    cost = cost, cached = cached, counted_cached = memory and memory.cached,
  }
end

local function store(id, reservation)
  local ends = now + request.duration
  reservation.length = request.duration
  redis.call('HSET', state, 'lease', integer(request.duration))
  redis.call('HSET', reservations, id, cjson.encode(reservation))
  redis.call('ZADD', slots, integer(ends), id)
  redis.call('ZADD', slots .. ':' .. reservation.model, integer(ends), id)
  redis.call('ZADD', due, integer(ends), key_id)
  redis.call('EXPIRE', state, IDLE_SECONDS)
end
