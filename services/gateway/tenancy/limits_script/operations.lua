-- The operations. ARGV[1] names the one to run.
local function admit()
  if redis.call('ZSCORE', slots, request.id) then
    -- An earlier attempt succeeded, but its reply was lost.
    return report({admitted = true})
  end
  local ahead = request.queue and requests_ahead() or 0
  local rejected = rejection(ahead)
  if rejected then
    if request.queue and rejected.limit == 'concurrency' and ahead < request.queue then
      join_queue()
      return report({admitted = false, rejection = rejected, ahead = ahead})
    end
    if request.queue then
      leave_queue()
    end
    return report({admitted = false, rejection = rejected})
  end
  if request.queue then
    leave_queue()
  end
  for _, scope in ipairs(scopes) do
    if scope.limits.rpm then
      fill('requests' .. scope.suffix, scope.limits.rpm, 1)
    end
  end
  local reservation = new_reservation()
  reservation.estimate, reservation.output = request.estimate, request.output
  reserve(request.model, request.estimate + request.output)
  account(reservation)
  store(request.id, reservation)
  return report({admitted = true})
end

-- Decide about the smallest possible request, before it is known what a request needs. Reserves nothing.
local function peek()
  local rejected = rejection(0)
  if rejected and request.queue and rejected.limit == 'concurrency' then
    rejected = nil
  end
  return report({admitted = not rejected, rejection = rejected})
end

-- Charge the tokens that the worker has counted so far, and release the same amount of the reservation.
local function progress(reservation)
  if request.prompt then
    charge(math.max(0, request.prompt - reservation.prompt), 0)
    reserve(request.model, -reservation.estimate)
    reservation.prompt, reservation.estimate = math.max(reservation.prompt, request.prompt), 0
    reservation.cached = request.cached
  end
  local new = math.max(0, request.completion - reservation.completion)
  local covered = math.min(new, reservation.output)
  charge(0, new)
  reserve(request.model, -covered)
  reservation.completion, reservation.output = reservation.completion + new, reservation.output - covered
  account(reservation)
end

-- Return the budget with the least capacity for further tokens of a reservation, and its capacity in tokens.
local function tightest_budget(reservation)
  local tightest, capacity
  local function consider(period, scope, left)
    if not capacity or left < capacity then
      tightest, capacity = {limit = period, scope = scope.name}, left
    end
  end
  for _, scope in ipairs(scopes) do
    for _, period in ipairs({'monthly', 'daily'}) do
      if scope.limits[period] then
        consider(period, scope, scope.limits[period] - used(period, scope) - number_of('reserved' .. scope.suffix))
      end
    end
    for _, period in ipairs(reservation.prices and COSTS or {}) do
      local left = money_left(period, scope)
      if left then
        consider(period, scope, affordable(reservation, left, request.reserve))
      end
    end
  end
  return tightest, capacity
end

-- Reserve further output tokens, as far as the budgets have capacity. If only a rate has none, nothing is reserved, and
-- the generation goes on with a debt.
local function top_up(reservation)
  local wanted = request.reserve - reservation.output
  if request.max_output then
    wanted = math.min(wanted, request.max_output - reservation.completion - reservation.output)
  end
  local _, capacity = tightest_budget(reservation)
  wanted = math.min(wanted, capacity or wanted)
  if wanted <= 0 or reservation.output * 2 > request.reserve then
    return
  end
  for _, scope in ipairs(scopes) do
    if tokens_rejection(scope, wanted) then
      return
    end
  end
  reserve(request.model, wanted)
  reservation.output = reservation.output + wanted
  account(reservation)
end

local function renew()
  local memory = remembered(request.id)
  if memory and memory.final then
    return cjson.encode({alive = false})
  end
  local reservation = reservation_of(request.id) or new_reservation(memory)
  progress(reservation)
  top_up(reservation)
  store(request.id, reservation)
  local budget, capacity = tightest_budget(reservation)
  local is_complete = request.max_output and reservation.completion >= request.max_output
  local result = {alive = true, credit = reservation.output}
  if budget and reservation.output == 0 and not is_complete then
    result.credit = math.max(0, math.min(capacity, request.reserve))
    result.spent = capacity <= 0 and budget or nil
  end
  return cjson.encode(result)
end

local function settle()
  local memory = remembered(request.id)
  if memory and memory.final then
    return cjson.encode({alive = false})
  end
  local reservation = reservation_of(request.id) or new_reservation(memory)
  charge(request.prompt - reservation.prompt, request.completion - reservation.completion)
  reservation.prompt, reservation.completion = request.prompt, request.completion
  finish(request.id, reservation, request)
  remember(request.id, reservation, true)
  return cjson.encode({alive = true})
end

-- Return whether the key has changed since the caller looked it up. Then nothing is decided.
local function is_stale(fingerprint)
  if redis.call('GET', shard .. ':secret:' .. fingerprint.secret) ~= key_id then
    return true
  end
  local record = redis.call('HGETALL', shard .. ':key:' .. key_id)
  return redis.sha1hex(table.concat(record, '\0')) ~= fingerprint.record
end

if request.fingerprint and is_stale(request.fingerprint) then
  return cjson.encode({stale = true})
end
shorten_reservations()
end_expired_reservations()
if request.prices then
  release_leaked_money()
end
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
