-- Decides about one key's limits. What a request needs is taken whole or not at all, and given back exactly once.
--
-- KEYS[1]  vilix:{sNN}:limits:KEY_ID. Every other name here has its hash tag, and so lives on the same node of a cluster.
-- ARGV[1]  the operation: peek, admit, renew, settle or show
-- ARGV[2]  JSON of what it needs; `ask` below. Returns JSON. Counts are whole; times are microseconds of Redis's own clock.
--
-- A request in progress is a lease: a member of the set of slots that ends by itself unless it is renewed, and a record of
-- what it was charged and what is still reserved for it. Tokens are charged when the worker has counted them; until then they
-- are reserved. A reservation takes part in every decision and does not leak away with time, as a charge does: what is given
-- back can therefore never be spent twice. In any time t, at most limit + limit * t / minute tokens are charged, but for the
-- debt of answers that outgrew what could be reserved for them.
--
-- A budget (daily, monthly) is a limit for running answers too: `renew` says when an answer has used up its reservation and the
-- budget has no room for more, and its gateway ends it. A rate (tpm) never ends an answer: its debt delays the next request.
--
-- The clock may go back, for example when a replica takes over. A stored time that is ahead of it counts as now.
local MINUTE = 60000000
local IDLE_SECONDS = 86400
local USAGE_SECONDS = 400 * 86400

local operation, ask = ARGV[1], cjson.decode(ARGV[2])
local time = redis.call('TIME')
local now = tonumber(time[1]) * 1000000 + tonumber(time[2])

local state = KEYS[1]
local shard, key_id = string.match(state, '^(.-}):limits:(.+)$')
local slots, leases = state .. ':slots', state .. ':leases'
local waiting, seen = state .. ':waiting', state .. ':seen'
local due = shard .. ':due'

local function whole(number)
  return string.format('%.0f', number)
end

-- The two scopes of every decision: all requests of the key, and those for this model.
local scopes = {
  {name = 'key', suffix = '', limits = ask.limits},
  {name = 'model', suffix = ':' .. ask.model, limits = ask.model_limits},
}

local function number_of(field)
  return tonumber(redis.call('HGET', state, field) or 0)
end

-- A bucket leaks `per_minute` drops a microsecond and holds MINUTE times as many, so that all of its numbers are whole.
local function level(bucket, per_minute)
  local filled = number_of(bucket)
  if filled == 0 then
    return 0
  end
  local at = number_of(bucket .. ':at')
  if at > now then
    at = now
    redis.call('HSET', state, bucket .. ':at', whole(now))
  end
  return math.max(0, filled - (now - at) * per_minute)
end

local function fill(bucket, per_minute, amount)
  local filled = math.max(0, level(bucket, per_minute) + amount * MINUTE)
  redis.call('HSET', state, bucket, whole(filled), bucket .. ':at', whole(now))
end

-- Days since 1970 as year, month and day: http://howardhinnant.github.io/date_algorithms.html#civil_from_days
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
  local both = redis.call('HMGET', counters, 'prompt:' .. ask.model, 'completion:' .. ask.model)
  return tonumber(both[1] or 0) + tonumber(both[2] or 0)
end

local function count(name, model, amount)
  if amount ~= 0 then
    for _, counters in pairs(periods) do
      redis.call('HINCRBY', counters, name .. ':' .. model, whole(amount))
    end
  end
end

local function reserve(model, amount)
  if amount ~= 0 then
    redis.call('HINCRBY', state, 'reserved', whole(amount))
    redis.call('HINCRBY', state, 'reserved:' .. model, whole(amount))
  end
end

-- Tokens that exist: they fill the buckets and count for the budgets, allowed or not.
local function charge(prompt, completion)
  local amount = prompt + completion
  count('prompt', ask.model, prompt)
  count('completion', ask.model, completion)
  if amount == 0 then
    return
  end
  for _, counters in pairs(periods) do
    redis.call('HINCRBY', counters, 'tokens', whole(amount))
    redis.call('EXPIRE', counters, USAGE_SECONDS)
  end
  for _, scope in ipairs(scopes) do
    if scope.limits.tpm then
      fill('tokens' .. scope.suffix, scope.limits.tpm, amount)
    end
  end
end

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

-- Why so many more tokens cannot be had in a scope: the limit, and the time until they could (-1: never).
local function tokens_refusal(scope, amount)
  local limits, reserved = scope.limits, number_of('reserved' .. scope.suffix)
  for _, period in ipairs({'monthly', 'daily'}) do
    if limits[period] then
      if used(period, scope) + reserved + amount > limits[period] then
        return {limit = period, scope = scope.name, wait = -1}
      end
    end
  end
  if limits.tpm then
    local missing = level('tokens' .. scope.suffix, limits.tpm) + (reserved + amount - limits.tpm) * MINUTE
    if missing > 0 then
      local wait = amount > limits.tpm and -1 or math.ceil(missing / limits.tpm)
      return {limit = 'tpm', scope = scope.name, wait = wait}
    end
  end
end

local function requests_refusal(scope)
  local rpm = scope.limits.rpm
  if rpm then
    local missing = level('requests' .. scope.suffix, rpm) + (1 - rpm) * MINUTE
    if missing > 0 then
      return {limit = 'rpm', scope = scope.name, wait = math.ceil(missing / rpm)}
    end
  end
end

local function running(scope)
  return redis.call('ZCOUNT', slots .. scope.suffix, '(' .. whole(now), '+inf')
end

local function slot_refusal(scope, ahead)
  local concurrency = scope.limits.concurrency
  if concurrency and running(scope) + ahead >= concurrency then
    return {limit = 'concurrency', scope = scope.name, wait = 0}
  end
end

local BUDGETS = {daily = true, monthly = true}

-- The limit that stands in the way for longest: a budget, then what never fits, then the longest wait, then a slot.
local function refusal(ahead)
  local worst
  local function consider(found)
    if found and not (worst and BUDGETS[worst.limit]) then
      local longer = worst and worst.wait ~= -1 and (found.wait == -1 or found.wait > worst.wait)
      if not worst or BUDGETS[found.limit] or longer then
        worst = found
      end
    end
  end
  for _, scope in ipairs(scopes) do
    consider(tokens_refusal(scope, ask.estimate + ask.output))
    consider(requests_refusal(scope))
  end
  for _, scope in ipairs(scopes) do
    consider(slot_refusal(scope, ahead))
  end
  return worst
end

-- The state of both scopes.
local function report(answer)
  answer.seconds = math.floor(now / 1000000)
  answer.scopes = {}
  for _, scope in ipairs(scopes) do
    local limits, reserved = scope.limits, number_of('reserved' .. scope.suffix)
    local shown = {reserved = reserved}
    if operation == 'show' or answer.refusal then
      shown.slots, shown.daily, shown.monthly = running(scope), used('daily', scope), used('monthly', scope)
    end
    if limits.rpm then
      local filled = level('requests' .. scope.suffix, limits.rpm)
      shown.requests = math.max(0, math.floor(limits.rpm - filled / MINUTE))
      shown.requests_reset = math.ceil(filled / limits.rpm)
    end
    if limits.tpm then
      local filled = level('tokens' .. scope.suffix, limits.tpm) + reserved * MINUTE
      shown.tokens = math.max(0, math.floor(limits.tpm - filled / MINUTE))
      shown.tokens_reset = math.ceil(filled / limits.tpm)
    end
    answer.scopes[scope.name] = shown
  end
  return cjson.encode(answer)
end

-- Waiting requests that were not seen for a second belong to clients that are gone.
local function ahead_of_me()
  for _, id in ipairs(redis.call('ZRANGEBYSCORE', seen, '(' .. whole(now), '+inf')) do
    redis.call('ZADD', seen, whole(now), id)
  end
  for _, id in ipairs(redis.call('ZRANGEBYSCORE', seen, '-inf', whole(now - 1000000))) do
    redis.call('ZREM', seen, id)
    redis.call('ZREM', waiting, id)
  end
  return redis.call('ZRANK', waiting, ask.id) or redis.call('ZCARD', waiting)
end

local function wait_in_line()
  -- Behind all others, also where they came before the clock went back.
  local last = redis.call('ZRANGE', waiting, -1, -1, 'WITHSCORES')[2]
  redis.call('ZADD', waiting, 'NX', whole(math.max(now, last and tonumber(last) + 1 or 0)), ask.id)
  redis.call('ZADD', seen, whole(now), ask.id)
  redis.call('EXPIRE', waiting, 60)
  redis.call('EXPIRE', seen, 60)
end

local function leave_line()
  redis.call('ZREM', waiting, ask.id)
  redis.call('ZREM', seen, ask.id)
end

local function admit()
  if redis.call('ZSCORE', slots, ask.id) then
    -- The answer to an earlier attempt was lost on its way.
    return report({admitted = true})
  end
  local ahead = ask.queue and ahead_of_me() or 0
  local refused = refusal(ahead)
  if refused then
    if ask.queue and refused.limit == 'concurrency' and ahead < ask.queue then
      wait_in_line()
      return report({admitted = false, refusal = refused, ahead = ahead})
    end
    if ask.queue then
      leave_line()
    end
    return report({admitted = false, refusal = refused})
  end
  if ask.queue then
    leave_line()
  end
  for _, scope in ipairs(scopes) do
    if scope.limits.rpm then
      fill('requests' .. scope.suffix, scope.limits.rpm, 1)
    end
  end
  local lease = new_lease()
  lease.estimate, lease.output = ask.estimate, ask.output
  reserve(ask.model, ask.estimate + ask.output)
  hold(ask.id, lease)
  return report({admitted = true})
end

-- Whether the key has no room for anything, before it is known what a request needs. Nothing is taken.
local function peek()
  local refused = refusal(0)
  if refused and ask.queue and refused.limit == 'concurrency' then
    refused = nil
  end
  return report({admitted = not refused, refusal = refused})
end

-- Charges what the worker has counted so far, and takes the reservation back for it.
local function progress(lease)
  if ask.prompt then
    charge(math.max(0, ask.prompt - lease.prompt), 0)
    reserve(ask.model, -lease.estimate)
    lease.prompt, lease.estimate = math.max(lease.prompt, ask.prompt), 0
  end
  local new = math.max(0, ask.completion - lease.completion)
  local covered = math.min(new, lease.output)
  charge(0, new)
  reserve(ask.model, -covered)
  lease.completion, lease.output = lease.completion + new, lease.output - covered
end

-- The budget with the least room, and how many more tokens that has room for.
local function tightest_budget()
  local tightest, room
  for _, scope in ipairs(scopes) do
    for period in pairs(BUDGETS) do
      if scope.limits[period] then
        local left = scope.limits[period] - used(period, scope) - number_of('reserved' .. scope.suffix)
        if not room or left < room then
          tightest, room = {limit = period, scope = scope.name}, left
        end
      end
    end
  end
  return tightest, room
end

-- Reserves for what the answer may still become, as far as the budgets have room. Where a rate has none, the answer goes on, and
-- its debt is carried.
local function top_up(lease)
  local wanted = ask.reserve - lease.output
  if ask.max_output then
    wanted = math.min(wanted, ask.max_output - lease.completion - lease.output)
  end
  local _, room = tightest_budget()
  wanted = math.min(wanted, room or wanted)
  if wanted <= 0 or lease.output * 2 > ask.reserve then
    return
  end
  for _, scope in ipairs(scopes) do
    if tokens_refusal(scope, wanted) then
      return
    end
  end
  reserve(ask.model, wanted)
  lease.output = lease.output + wanted
end

local function renew()
  local memory = remembered(ask.id)
  if memory and memory.final then
    return cjson.encode({alive = false})
  end
  local lease = lease_of(ask.id) or new_lease(memory)
  progress(lease)
  top_up(lease)
  hold(ask.id, lease)
  local budget, room = tightest_budget()
  local is_whole = ask.max_output and lease.completion >= ask.max_output
  local answer = {alive = true, credit = lease.output}
  if budget and lease.output == 0 and not is_whole then
    answer.credit = math.max(0, math.min(room, ask.reserve))
    answer.spent = room <= 0 and budget or nil
  end
  return cjson.encode(answer)
end

local function settle()
  local memory = remembered(ask.id)
  if memory and memory.final then
    return cjson.encode({alive = false})
  end
  local lease = lease_of(ask.id) or new_lease(memory)
  charge(ask.prompt - lease.prompt, ask.completion - lease.completion)
  lease.prompt, lease.completion = ask.prompt, ask.completion
  finish(ask.id, lease, ask)
  remember(ask.id, ask.prompt, ask.completion, true)
  return cjson.encode({alive = true})
end

-- A caller that remembers a key, and did not look it up, says as what: only while it is still that is anything decided.
local function is_stale(proof)
  if redis.call('GET', shard .. ':secret:' .. proof.secret) ~= key_id then
    return true
  end
  local record = redis.call('HGETALL', shard .. ':key:' .. key_id)
  return redis.sha1hex(table.concat(record, '\0')) ~= proof.record
end

if ask.proof and is_stale(ask.proof) then
  return cjson.encode({stale = true})
end
shorten_leases()
reap()
if operation == 'admit' then
  return admit()
elseif operation == 'peek' then
  return peek()
elseif operation == 'renew' then
  return renew()
elseif operation == 'settle' then
  return settle()
end
return report({})
