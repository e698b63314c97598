// The levels after the first, one after the other. Data sets with fewer levels leave earlier; a process cannot be called
// twice, so each rung is the same sub-workflow under a name of its own.
include { LEVEL as LEVEL_2 } from './level'
include { LEVEL as LEVEL_3 } from './level'
include { LEVEL as LEVEL_4 } from './level'
include { LEVEL as LEVEL_5 } from './level'
include { LEVEL as LEVEL_6 } from './level'
include { LEVEL as LEVEL_7 } from './level'
include { LEVEL as LEVEL_8 } from './level'

workflow LADDER {
    take:
    starts // [meta, settings of the levels that are left, import job, particle set]

    main:
    rung_2 = starts.filter { row -> row[1].size() > 0 }
    LEVEL_2(rung_2.map { meta, levels, tilt_series, particles -> [meta, levels[0], tilt_series, particles] })
    after_2 = rung_2.join(LEVEL_2.out.particles).map { meta, levels, tilt_series, _last, particles -> [meta, levels.drop(1), tilt_series, particles] }
    rung_3 = after_2.filter { row -> row[1].size() > 0 }
    LEVEL_3(rung_3.map { meta, levels, tilt_series, particles -> [meta, levels[0], tilt_series, particles] })
    after_3 = rung_3.join(LEVEL_3.out.particles).map { meta, levels, tilt_series, _last, particles -> [meta, levels.drop(1), tilt_series, particles] }
    rung_4 = after_3.filter { row -> row[1].size() > 0 }
    LEVEL_4(rung_4.map { meta, levels, tilt_series, particles -> [meta, levels[0], tilt_series, particles] })
    after_4 = rung_4.join(LEVEL_4.out.particles).map { meta, levels, tilt_series, _last, particles -> [meta, levels.drop(1), tilt_series, particles] }
    rung_5 = after_4.filter { row -> row[1].size() > 0 }
    LEVEL_5(rung_5.map { meta, levels, tilt_series, particles -> [meta, levels[0], tilt_series, particles] })
    after_5 = rung_5.join(LEVEL_5.out.particles).map { meta, levels, tilt_series, _last, particles -> [meta, levels.drop(1), tilt_series, particles] }
    rung_6 = after_5.filter { row -> row[1].size() > 0 }
    LEVEL_6(rung_6.map { meta, levels, tilt_series, particles -> [meta, levels[0], tilt_series, particles] })
    after_6 = rung_6.join(LEVEL_6.out.particles).map { meta, levels, tilt_series, _last, particles -> [meta, levels.drop(1), tilt_series, particles] }
    rung_7 = after_6.filter { row -> row[1].size() > 0 }
    LEVEL_7(rung_7.map { meta, levels, tilt_series, particles -> [meta, levels[0], tilt_series, particles] })
    after_7 = rung_7.join(LEVEL_7.out.particles).map { meta, levels, tilt_series, _last, particles -> [meta, levels.drop(1), tilt_series, particles] }
    rung_8 = after_7.filter { row -> row[1].size() > 0 }
    LEVEL_8(rung_8.map { meta, levels, tilt_series, particles -> [meta, levels[0], tilt_series, particles] })

    emit:
    maps = LEVEL_2.out.maps.mix(LEVEL_3.out.maps, LEVEL_4.out.maps, LEVEL_5.out.maps, LEVEL_6.out.maps, LEVEL_7.out.maps, LEVEL_8.out.maps)
    jobs = LEVEL_2.out.jobs.mix(LEVEL_3.out.jobs, LEVEL_4.out.jobs, LEVEL_5.out.jobs, LEVEL_6.out.jobs, LEVEL_7.out.jobs, LEVEL_8.out.jobs)
}
