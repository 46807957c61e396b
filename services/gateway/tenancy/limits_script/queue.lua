-- The queue of requests that wait for a slot, for keys whose tier has one.
-- Return how many requests are before this one. Remove those without an attempt for a second: their clients are gone.
local function requests_ahead()
  for _, id in ipairs(redis.call('ZRANGEBYSCORE', seen, '(' .. integer(now), '+inf')) do
    redis.call('ZADD', seen, integer(now), id)
  end
  for _, id in ipairs(redis.call('ZRANGEBYSCORE', seen, '-inf', integer(now - 1000000))) do
    redis.call('ZREM', seen, id)
    redis.call('ZREM', waiting, id)
  end
  return redis.call('ZRANK', waiting, request.id) or redis.call('ZCARD', waiting)
end

local function join_queue()
  -- Behind all others, even if those joined before the clock went back.
  local last = redis.call('ZRANGE', waiting, -1, -1, 'WITHSCORES')[2]
  redis.call('ZADD', waiting, 'NX', integer(math.max(now, last and tonumber(last) + 1 or 0)), request.id)
  redis.call('ZADD', seen, integer(now), request.id)
  redis.call('EXPIRE', waiting, 60)
  redis.call('EXPIRE', seen, 60)
end

local function leave_queue()
  redis.call('ZREM', waiting, request.id)
  redis.call('ZREM', seen, request.id)
end
