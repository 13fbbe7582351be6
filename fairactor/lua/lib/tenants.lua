-- Tenants: their counts, their policy and their place on the ring.
--
-- A script loads the tenants that it touches, changes their counts in memory, and lets `save_tenants` write it
-- all at its end. A tenant is on the ring exactly when it is eligible, so nothing records that beside.
--
-- Selection is start-time fair queuing (Goyal, Vin, Chen 1996): the ring holds the start tag of each tenant's
-- next task, serving adds cost / weight to it, and virtual time is the tag last served.

-- A tenant in memory is an array, not a table of named fields: one allocation instead of three, and this is
-- where scripts spend their time. First what lives for one script only, then the counts as they are stored.
local NAME, QUEUED, WEIGHT, CONCURRENCY = 1, 2, 3, 4
local WAS_ELIGIBLE, CHANGED, TAKE = 5, 6, 7
local TAG, RING_TAG = 8, 9 -- where it stands on the ring: to be, and as stored; false where unknown
local FIRST = 10 -- queued at priority p: FIRST + p - 1
local STARTED, WAITING, DEFERRED, FINISHED, FAILED, CANCELED = 16, 17, 18, 19, 20, 21
local LAST = 22 -- until when (unix seconds) the totals outlive the last task
local KEEP = LAST

-- Counts of live tasks are small, those of ended ones may grow for years.
local COUNTS_FORMAT = '>I4I4I4I4I4I4I4I4I4dddI4'
local NO_COUNTS = string.rep('\0', 64)
local ENDED = { [DONE] = FINISHED, [DEAD] = FAILED, [CANCELED_STATE] = CANCELED }

local tenants = {}

local function queued(t)
  return t[FIRST] + t[FIRST + 1] + t[FIRST + 2] + t[FIRST + 3] + t[FIRST + 4] + t[FIRST + 5]
end
local function busy(t) return queued(t) + t[STARTED] end
local function alive(t) return busy(t) + t[WAITING] + t[DEFERRED] end

local function eligible(t) return t[QUEUED] > 0 and not (t[CONCURRENCY] and t[STARTED] >= t[CONCURRENCY]) end

local function set_policy(t, packed)
  local policy = packed and cmsgpack.unpack(packed) or {}
  t[WEIGHT] = policy.weight or 1
  t[CONCURRENCY] = policy.concurrency or false
end

local function new_tenant(name, counts, policy)
  local t = { name, 0, 1, false, false, false, 0, false, false, struct.unpack(COUNTS_FORMAT, counts or NO_COUNTS) }
  t[QUEUED] = queued(t)
  if policy then set_policy(t, policy) end
  t[WAS_ELIGIBLE] = eligible(t)
  return t
end

local function pack_counts(t) return struct.pack(COUNTS_FORMAT, unpack(t, FIRST, LAST)) end

local total = new_tenant('', shard.total) -- of the whole shard
local was_busy = busy(total) > 0

-- Reads those of `names` that are not loaded yet.
local function load_tenants(names)
  local fresh = {}
  for _, name in ipairs(names) do
    if not tenants[name] then
      tenants[name] = true
      fresh[#fresh + 1] = name
    end
  end
  if #fresh == 0 then return end
  local counts = read_all('HMGET', COUNTS, fresh)
  local policies = call('EXISTS', POLICY) == 1 and read_all('HMGET', POLICY, fresh) or {}
  for i, name in ipairs(fresh) do tenants[name] = new_tenant(name, counts[i], policies[i]) end
end

-- Counts `n` tasks more in a state: at a priority if they are queued, else STARTED and so on.
local function add(t, index, n)
  t[index] = t[index] + n
  total[index] = total[index] + n
  t[CHANGED] = true
end

local function add_queued(t, priority, n)
  add(t, FIRST + priority - 1, n)
  t[QUEUED] = t[QUEUED] + n
end

-- Counts a task that ends, and keeps the tenant's totals as long as its record is kept.
local function add_ended(t, state, ttl_ms)
  add(t, ENDED[state], 1)
  if ttl_ms > 0 then t[KEEP] = math.max(t[KEEP], math.ceil(shard.now / 1e6 + ttl_ms / 1000)) end
end

-- Gives a tag to each loaded tenant that has become eligible: its own last one or virtual time, whichever is
-- later, so that nothing is gained by draining and coming back. Reads only. Returns their names.
local function tag_arrivals()
  local names = {}
  for name, t in pairs(tenants) do
    if not t[TAG] and not t[WAS_ELIGIBLE] and eligible(t) then names[#names + 1] = name end
  end
  if #names > 0 then
    local remembered = read_all('ZMSCORE', TAGS, names)
    for i, name in ipairs(names) do
      tenants[name][TAG] = math.max(tonumber(remembered[i]) or 0, shard.virtual)
    end
  end
  return names
end

-- Looks up the tags of loaded tenants that have ceased to be eligible other than by a claim. Reads only.
local function tag_departures()
  for name, t in pairs(tenants) do
    if not t[TAG] and t[WAS_ELIGIBLE] and not eligible(t) then
      t[TAG] = tonumber(call('ZSCORE', RING, name)) or 0
    end
  end
end

-- Wakes one runtime that would take more work; it wakes the next if it leaves any. A runtime that was killed
-- hears nothing (PUBLISH counts who did), so the next one is tried.
local function wake_idle()
  for _ = 1, 8 do
    local runtime = call('SPOP', IDLE)
    if not runtime or call('PUBLISH', INBOX .. runtime, 'w') > 0 then return end
  end
end

local function save_counts()
  local keep, drop, drained = {}, {}, {}
  for name, t in pairs(tenants) do
    if t[CHANGED] then
      local gone = alive(t) == 0
      if gone and t[KEEP] * 1e6 <= shard.now then
        drop[#drop + 1] = name
      else
        keep[#keep + 1], keep[#keep + 2] = name, pack_counts(t)
        if gone then drained[#drained + 1], drained[#drained + 2] = integer(t[KEEP]), name end
      end
    end
  end
  write_all('HSET', COUNTS, keep)
  write_all('HDEL', COUNTS, drop)
  write_all('ZADD', DRAINED, drained)
end

local function save_ring()
  local enter, leave, remember = {}, {}, {}
  for name, t in pairs(tenants) do
    local tag = t[TAG]
    if eligible(t) then
      if tag and tag ~= t[RING_TAG] then enter[#enter + 1], enter[#enter + 2] = exact(tag), name end
    elseif t[WAS_ELIGIBLE] then
      leave[#leave + 1] = name
    end
    -- Also of one that came and went within this script: it has been served.
    if tag and tag > shard.virtual and not eligible(t) then
      remember[#remember + 1], remember[#remember + 2] = exact(tag), name
    end
  end
  write_all('ZADD', RING, enter)
  write_all('ZREM', RING, leave)
  write_all('ZADD', TAGS, remember)
end

-- Writes what has changed, ends a busy period, and wakes who should know. `tag_arrivals` and `tag_departures`
-- must have run.
local function save_tenants()
  save_counts()
  save_ring()
  local waiting = call('ZCARD', RING)
  if waiting == 0 then
    shard.virtual = 0 -- nobody waits, so nobody can be ahead: start afresh, and keep nothing
    call('DEL', TAGS)
  else
    call('ZREMRANGEBYSCORE', TAGS, '-inf', exact(shard.virtual))
  end
  call('HSET', META, 'stamp', integer(shard.stamp), 'virtual', exact(shard.virtual), 'total', pack_counts(total))
  if waiting > 0 then wake_idle() end
  if was_busy and busy(total) == 0 then call('PUBLISH', EVENTS, 'd') end
end
