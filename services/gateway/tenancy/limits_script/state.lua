-- Decides about one key's limits. A request's needs are reserved as a whole or not at all, and released exactly once.
--
-- KEYS[1]  vilix:{sNN}:limits:KEY_ID. All other names have the same hash tag, and so are on the same node of a cluster.
-- ARGV[1]  the operation: peek, admit, renew, settle or show
-- ARGV[2]  its arguments as JSON, `request` below. Returns JSON. Counts are integers; times are microseconds of Redis's
--          own clock.
--
-- A running request has a reservation: a member of the sorted set of slots, which expires unless it is renewed, and a
-- record of the tokens that were charged and of those that are still reserved. Tokens are charged when the worker has
-- counted them; until then they are reserved. A reservation counts in every decision and does not leak with time, as a
-- charge does, so released tokens can never be spent twice. In any time t, at most limit + limit * t / minute tokens
-- are charged, plus the debt of generations that exceeded what could be reserved for them.
--
-- Budgets in money (daily_cost, weekly_cost, monthly_cost) are reserved and charged in the same way: see money.lua.
--
-- A budget (daily, monthly) also limits running generations: `renew` reports when a generation has used up its
-- reservation and the budget has no capacity left, and its gateway ends it. A rate (tpm) never ends a generation: its
-- debt delays the next request.
--
-- The clock may go back, for example when a replica takes over. A stored time that is ahead of it counts as now.
local MINUTE = 60000000
local IDLE_SECONDS = 86400
local USAGE_SECONDS = 400 * 86400

local operation, request = ARGV[1], cjson.decode(ARGV[2])
local time = redis.call('TIME')
local now = tonumber(time[1]) * 1000000 + tonumber(time[2])

local state = KEYS[1]
local shard, key_id = string.match(state, '^(.-}):limits:(.+)$')
-- Running gateways of earlier versions use the same data. So its names stay, such as ':leases' and the field 'lease',
-- which stand for reservations.
local slots, reservations = state .. ':slots', state .. ':leases'
local waiting, seen = state .. ':waiting', state .. ':seen'
local due = shard .. ':due'

local function integer(number)
  return string.format('%.0f', number)
end

-- The two scopes of every decision: all requests of the key, and those for the model.
local scopes = {
  {name = 'key', suffix = '', limits = request.limits},
  {name = 'model', suffix = ':' .. request.model, limits = request.model_limits},
}

local function number_of(field)
  return tonumber(redis.call('HGET', state, field) or 0)
end

-- Return the level of a leaky bucket. It leaks `per_minute` units per microsecond and holds MINUTE times as many, so
-- that all numbers are integers.
local function level(bucket, per_minute)
  local filled = number_of(bucket)
  if filled == 0 then
    return 0
  end
  local at = number_of(bucket .. ':at')
  if at > now then
    at = now
    redis.call('HSET', state, bucket .. ':at', integer(now))
  end
  return math.max(0, filled - (now - at) * per_minute)
end

local function fill(bucket, per_minute, amount)
  local filled = math.max(0, level(bucket, per_minute) + amount * MINUTE)
  redis.call('HSET', state, bucket, integer(filled), bucket .. ':at', integer(now))
end

-- Convert days since 1970 to year, month and day: http://howardhinnant.github.io/date_algorithms.html#civil_from_days
local function date(days)
  local shifted = days + 719468
  local era = math.floor(shifted / 146097)
  local day = shifted - era * 146097
  local year = math.floor((day - math.floor(day / 1460) + math.floor(day / 36524) - math.floor(day / 146096)) / 365)
  day = day - (365 * year + math.floor(year / 4) - math.floor(year / 100))
  local march_based = math.floor((5 * day + 2) / 153)
  local month = march_based < 10 and march_based + 3 or march_based - 9
  if month <= 2 then
    year = year + 1
  end
  return year + era * 400, month, day - math.floor((153 * march_based + 2) / 5) + 1
end

local year, month, day = date(math.floor(now / 86400000000))
local periods = {
  daily = string.format('%s:%04d-%02d-%02d', shard .. ':usage:' .. key_id, year, month, day),
  monthly = string.format('%s:%04d-%02d', shard .. ':usage:' .. key_id, year, month),
}

local function used(period, scope)
  local counters = periods[period]
  if scope.name == 'key' then
    return tonumber(redis.call('HGET', counters, 'tokens') or 0)
  end
  local both = redis.call('HMGET', counters, 'prompt:' .. request.model, 'completion:' .. request.model)
  return tonumber(both[1] or 0) + tonumber(both[2] or 0)
end

local function count(name, model, amount)
  if amount ~= 0 then
    for _, counters in pairs(periods) do
      redis.call('HINCRBY', counters, name .. ':' .. model, integer(amount))
    end
  end
end

local function reserve(model, amount)
  if amount ~= 0 then
    redis.call('HINCRBY', state, 'reserved', integer(amount))
    redis.call('HINCRBY', state, 'reserved:' .. model, integer(amount))
  end
end

-- Charge tokens that were produced: they fill the buckets and count for the budgets, even beyond a limit.
local function charge(prompt, completion)
  local amount = prompt + completion
  count('prompt', request.model, prompt)
  count('completion', request.model, completion)
  if amount == 0 then
    return
  end
  for _, counters in pairs(periods) do
    redis.call('HINCRBY', counters, 'tokens', integer(amount))
    redis.call('EXPIRE', counters, USAGE_SECONDS)
  end
  for _, scope in ipairs(scopes) do
    if scope.limits.tpm then
      fill('tokens' .. scope.suffix, scope.limits.tpm, amount)
    end
  end
end
