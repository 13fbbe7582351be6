-- Dedicated runtimes, which serve certain tenants only.
--
-- Each has its own virtual time, since its tenants may be served faster or slower than others: one that arrives must
-- neither wait nor gain by that. It is never behind the shard's, since all other runtimes serve every tenant.

-- @include lib/base.lua

local dedicated = {} -- runtime -> its virtual time
do
  local flat = call('HGETALL', HOMES)
  for i = 1, #flat, 2 do dedicated[flat[i]] = tonumber(flat[i + 1]) end
end
local kinds_of_dedicated = {} -- runtime -> its kind, if there are several
if shard.several and next(dedicated) then
  for runtime in pairs(dedicated) do kinds_of_dedicated[runtime] = call('HGET', KIND_OF, runtime) end
end

-- Whether a dedicated runtime is of a kind, by default that for which the script acts.
local function is_of_kind(runtime, kind)
  return not shard.several or (kinds_of_dedicated[runtime] or shard.kind) == (kind or shard.kind)
end

local reassigned, reassigned_tenants -- a runtime whose tenants change here, and its new ones

-- Returns the latest virtual time of a tenant's dedicated runtimes of a kind, by default that for which the script acts;
-- nil if there is none. `virtual` is the time of the kind.
local function dedicated_time(name, kind, virtual)
  local latest
  for runtime, time in pairs(dedicated) do
    local serves_it
    if not is_of_kind(runtime, kind) then
      serves_it = false
    elseif runtime == reassigned then
      serves_it = reassigned_tenants[name]
    else
      serves_it = call('SISMEMBER', ASSIGNED .. runtime, name) == 1
    end
    if serves_it then latest = math.max(latest or virtual or shard.virtual, time) end
  end
  return latest
end

-- Wakes one runtime of a kind that would take more work of any tenant; it wakes the next if it leaves any. A killed
-- runtime receives nothing (PUBLISH returns how many did), so the next one is tried. Returns whether one was there.
local function wake_kind(idle)
  for _ = 1, 8 do
    local runtime = call('SPOP', idle)
    if not runtime then return false end
    if call('PUBLISH', INBOX .. runtime, 'w') > 0 then return true end
  end
end

-- Returns the key of the idle runtimes of a kind.
local function idle_of(kind) return kind == '0' and IDLE or KIND_IDLE .. kind end

-- Wakes a runtime, of the kind for which the script acts if one of it is idle.
local function wake_idle()
  if wake_kind(shard.idle) or not shard.several then return end
  for kind in shard.kinds:gmatch('%d+') do
    if kind ~= shard.kind and wake_kind(idle_of(kind)) then return end
  end
end

-- Wakes the dedicated runtimes that serve some of these tenants.
local function wake_dedicated(names)
  for _, runtime in ipairs(next(dedicated) and call('SMEMBERS', IDLE_HOMES) or {}) do
    for _, name in ipairs(names) do
      if call('SISMEMBER', ASSIGNED .. runtime, name) == 1 or call('SISMEMBER', STEAL .. runtime, name) == 1 then
        call('SREM', IDLE_HOMES, runtime)
        call('PUBLISH', INBOX .. runtime, 'w')
        break
      end
    end
  end
end

-- Wakes the dedicated runtimes of some kinds, or of all.
local function wake_homes(some)
  for _, runtime in ipairs(next(dedicated) and call('SMEMBERS', IDLE_HOMES) or {}) do
    if not some or some[shard.several and kinds_of_dedicated[runtime] or shard.kind] then
      call('SREM', IDLE_HOMES, runtime)
      call('PUBLISH', INBOX .. runtime, 'w')
    end
  end
end

-- Wakes a runtime of each kind.
local function wake_each_kind()
  for kind in shard.kinds:gmatch('%d+') do wake_kind(idle_of(kind)) end
end

-- Wakes all dedicated runtimes and one of the others of each kind: one that leaves or serves others now may have been the only one
-- that knew of work, or how long to sleep.
local function wake_all()
  wake_each_kind()
  wake_homes()
end

-- Whether a runtime serves all tenants, if only when its own have no work.
local function serves_all(runtime)
  return not dedicated[runtime] or call('SISMEMBER', STEAL .. runtime, '') == 1
end
