-- The decision: whether the limits allow a request, which limit does not, and the state of the limits.
-- Return the limit of a scope that does not allow `amount` more tokens, and the time until it does (-1: never).
local function tokens_rejection(scope, amount)
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

local function requests_rejection(scope)
  local rpm = scope.limits.rpm
  if rpm then
    local missing = level('requests' .. scope.suffix, rpm) + (1 - rpm) * MINUTE
    if missing > 0 then
      return {limit = 'rpm', scope = scope.name, wait = math.ceil(missing / rpm)}
    end
  end
end

local function running(scope)
  return redis.call('ZCOUNT', slots .. scope.suffix, '(' .. integer(now), '+inf')
end

local function slot_rejection(scope, ahead)
  local concurrency = scope.limits.concurrency
  if concurrency and running(scope) + ahead >= concurrency then
    return {limit = 'concurrency', scope = scope.name, wait = 0}
  end
end

local BUDGETS = {daily = true, monthly = true, daily_cost = true, weekly_cost = true, monthly_cost = true}

-- Return the limit that rejects the request for longest: a budget, then one that it never fits, then the longest wait,
-- then a missing slot.
local function rejection(ahead)
  local worst
  local function consider(candidate)
    if candidate and not (worst and BUDGETS[worst.limit]) then
      local longer = worst and worst.wait ~= -1 and (candidate.wait == -1 or candidate.wait > worst.wait)
      if not worst or BUDGETS[candidate.limit] or longer then
        worst = candidate
      end
    end
  end
  local cost = request.prices and cost_of(request.prices, request.estimate, 0, request.output)
  for _, scope in ipairs(scopes) do
    if cost then
      consider(money_rejection(scope, cost))
    end
    consider(tokens_rejection(scope, request.estimate + request.output))
    consider(requests_rejection(scope))
  end
  for _, scope in ipairs(scopes) do
    consider(slot_rejection(scope, ahead))
  end
  return worst
end

-- Add the state of both scopes to `result`, and return it as JSON.
local function report(result)
  result.seconds = math.floor(now / 1000000)
  result.scopes = {}
  for _, scope in ipairs(scopes) do
    local limits, reserved = scope.limits, number_of('reserved' .. scope.suffix)
    local values = {reserved = reserved}
    if operation == 'show' or result.rejection then
      values.slots, values.daily, values.monthly = running(scope), used('daily', scope), used('monthly', scope)
      for _, period in ipairs(COSTS) do
        if limits[period] then
          -- As text, because JSON's numbers are written with 14 digits here.
          values[period] = integer(spent(period, scope))
          values.reserved_cost = integer(number_of('reserved_cost' .. scope.suffix))
        end
      end
    end
    if limits.rpm then
      local filled = level('requests' .. scope.suffix, limits.rpm)
      values.requests = math.max(0, math.floor(limits.rpm - filled / MINUTE))
      values.requests_reset = math.ceil(filled / limits.rpm)
    end
    if limits.tpm then
      local filled = level('tokens' .. scope.suffix, limits.tpm) + reserved * MINUTE
      values.tokens = math.max(0, math.floor(limits.tpm - filled / MINUTE))
      values.tokens_reset = math.ceil(filled / limits.tpm)
    end
    result.scopes[scope.name] = values
  end
  return cjson.encode(result)
end
