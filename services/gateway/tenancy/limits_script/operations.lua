-- The operations, of which one is run.
local function admit()
  if redis.call('ZSCORE', slots, ask.id) then
    -- The answer to an earlier attempt was lost on its way.
    return report({admitted = true})
  end
  local ahead = ask.queue and ahead_of_me() or 0
  local rejected = rejection(ahead)
  if rejected then
    if ask.queue and rejected.limit == 'concurrency' and ahead < ask.queue then
      join_queue()
      return report({admitted = false, rejection = rejected, ahead = ahead})
    end
    if ask.queue then
      leave_queue()
    end
    return report({admitted = false, rejection = rejected})
  end
  if ask.queue then
    leave_queue()
  end
  for _, scope in ipairs(scopes) do
    if scope.limits.rpm then
      fill('requests' .. scope.suffix, scope.limits.rpm, 1)
    end
  end
  local reservation = new_reservation()
  reservation.estimate, reservation.output = ask.estimate, ask.output
  reserve(ask.model, ask.estimate + ask.output)
  hold(ask.id, reservation)
  return report({admitted = true})
end

-- Whether the key has no room for anything, before it is known what a request needs. Nothing is taken.
local function peek()
  local rejected = rejection(0)
  if rejected and ask.queue and rejected.limit == 'concurrency' then
    rejected = nil
  end
  return report({admitted = not rejected, rejection = rejected})
end

-- Charges what the worker has counted so far, and takes the reservation back for it.
local function progress(reservation)
  if ask.prompt then
    charge(math.max(0, ask.prompt - reservation.prompt), 0)
    reserve(ask.model, -reservation.estimate)
    reservation.prompt, reservation.estimate = math.max(reservation.prompt, ask.prompt), 0
  end
  local new = math.max(0, ask.completion - reservation.completion)
  local covered = math.min(new, reservation.output)
  charge(0, new)
  reserve(ask.model, -covered)
  reservation.completion, reservation.output = reservation.completion + new, reservation.output - covered
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
local function top_up(reservation)
  local wanted = ask.reserve - reservation.output
  if ask.max_output then
    wanted = math.min(wanted, ask.max_output - reservation.completion - reservation.output)
  end
  local _, room = tightest_budget()
  wanted = math.min(wanted, room or wanted)
  if wanted <= 0 or reservation.output * 2 > ask.reserve then
    return
  end
  for _, scope in ipairs(scopes) do
    if tokens_rejection(scope, wanted) then
      return
    end
  end
  reserve(ask.model, wanted)
  reservation.output = reservation.output + wanted
end

local function renew()
  local memory = remembered(ask.id)
  if memory and memory.final then
    return cjson.encode({alive = false})
  end
  local reservation = reservation_of(ask.id) or new_reservation(memory)
  progress(reservation)
  top_up(reservation)
  hold(ask.id, reservation)
  local budget, room = tightest_budget()
  local is_whole = ask.max_output and reservation.completion >= ask.max_output
  local answer = {alive = true, credit = reservation.output}
  if budget and reservation.output == 0 and not is_whole then
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
  local reservation = reservation_of(ask.id) or new_reservation(memory)
  charge(ask.prompt - reservation.prompt, ask.completion - reservation.completion)
  reservation.prompt, reservation.completion = ask.prompt, ask.completion
  finish(ask.id, reservation, ask)
  remember(ask.id, ask.prompt, ask.completion, true)
  return cjson.encode({alive = true})
end

-- A caller that remembers a key, and did not look it up, says as what: only while it is still that is anything decided.
local function is_stale(fingerprint)
  if redis.call('GET', shard .. ':secret:' .. fingerprint.secret) ~= key_id then
    return true
  end
  local record = redis.call('HGETALL', shard .. ':key:' .. key_id)
  return redis.sha1hex(table.concat(record, '\0')) ~= fingerprint.record
end

if ask.fingerprint and is_stale(ask.fingerprint) then
  return cjson.encode({stale = true})
end
shorten_reservations()
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
