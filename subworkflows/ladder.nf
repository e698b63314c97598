// All levels, one after the other: the first one from picks, then those that begin with oriented particles. Data sets with
// fewer levels leave earlier; a process cannot be called twice, so each rung is the same sub-workflow under a name of its
// own. Only as many are set up as the data sets can need.
include { AVERAGE ; FIRST_LEVEL } from './level'
include { LEVEL as LEVEL_1 } from './level'
include { LEVEL as LEVEL_2 } from './level'
include { LEVEL as LEVEL_3 } from './level'
include { LEVEL as LEVEL_4 } from './level'
include { LEVEL as LEVEL_5 } from './level'
include { LEVEL as LEVEL_6 } from './level'
include { LEVEL as LEVEL_7 } from './level'
include { LEVEL as LEVEL_8 } from './level'

workflow LADDER {
    take:
    picks // [meta, plan, series, particle set, given mask, given map]
    oriented // the same, for particles that are refined from where they are
    refined // the same, for particles that were refined elsewhere: only averaged
    most // as of most_steps

    main:
    AVERAGE(refined.map { meta, plan, series, particles, mask, _map -> [meta, "${plan.levels[0].name}_result".toString(), plan.levels[0], series, mask, particles] })
    left = oriented.map { meta, plan, series, particles, mask, map -> [meta, plan.levels, series, mask, particles, particles, map] }
    finals = refined.map { row -> [row[0], row[3]] }.join(AVERAGE.out.maps).join(AVERAGE.out.mask).join(AVERAGE.out.postprocess)
    jobs = AVERAGE.out.jobs
    if (most.first) {
        FIRST_LEVEL(picks)
        left = left.mix(
            picks.join(FIRST_LEVEL.out.particles).map { meta, plan, series, _picks, mask, _map, particles, source -> [meta, plan.levels.drop(1), series, mask, particles, source, []] }
        )
        finals = finals.mix(FIRST_LEVEL.out.finals)
        jobs = jobs.mix(FIRST_LEVEL.out.jobs)
    }
    left = left.filter { row -> row[1] }
    if (most.rungs > 0) {
        LEVEL_1(left.map { row -> rung_of(row) })
        finals = finals.mix(LEVEL_1.out.finals)
        jobs = jobs.mix(LEVEL_1.out.jobs)
        left = left.join(LEVEL_1.out.particles).map { row -> after_rung(row) }.filter { row -> row[1] }
    }
    if (most.rungs > 1) {
        LEVEL_2(left.map { row -> rung_of(row) })
        finals = finals.mix(LEVEL_2.out.finals)
        jobs = jobs.mix(LEVEL_2.out.jobs)
        left = left.join(LEVEL_2.out.particles).map { row -> after_rung(row) }.filter { row -> row[1] }
    }
    if (most.rungs > 2) {
        LEVEL_3(left.map { row -> rung_of(row) })
        finals = finals.mix(LEVEL_3.out.finals)
        jobs = jobs.mix(LEVEL_3.out.jobs)
        left = left.join(LEVEL_3.out.particles).map { row -> after_rung(row) }.filter { row -> row[1] }
    }
    if (most.rungs > 3) {
        LEVEL_4(left.map { row -> rung_of(row) })
        finals = finals.mix(LEVEL_4.out.finals)
        jobs = jobs.mix(LEVEL_4.out.jobs)
        left = left.join(LEVEL_4.out.particles).map { row -> after_rung(row) }.filter { row -> row[1] }
    }
    if (most.rungs > 4) {
        LEVEL_5(left.map { row -> rung_of(row) })
        finals = finals.mix(LEVEL_5.out.finals)
        jobs = jobs.mix(LEVEL_5.out.jobs)
        left = left.join(LEVEL_5.out.particles).map { row -> after_rung(row) }.filter { row -> row[1] }
    }
    if (most.rungs > 5) {
        LEVEL_6(left.map { row -> rung_of(row) })
        finals = finals.mix(LEVEL_6.out.finals)
        jobs = jobs.mix(LEVEL_6.out.jobs)
        left = left.join(LEVEL_6.out.particles).map { row -> after_rung(row) }.filter { row -> row[1] }
    }
    if (most.rungs > 6) {
        LEVEL_7(left.map { row -> rung_of(row) })
        finals = finals.mix(LEVEL_7.out.finals)
        jobs = jobs.mix(LEVEL_7.out.jobs)
        left = left.join(LEVEL_7.out.particles).map { row -> after_rung(row) }.filter { row -> row[1] }
    }
    if (most.rungs > 7) {
        LEVEL_8(left.map { row -> rung_of(row) })
        finals = finals.mix(LEVEL_8.out.finals)
        jobs = jobs.mix(LEVEL_8.out.jobs)
        left = left.join(LEVEL_8.out.particles).map { row -> after_rung(row) }.filter { row -> row[1] }
    }
    left.subscribe { row -> error("${row[0].id} needs ${row[1].size()} levels more than are set up, a fault of the pipeline's: please report it, with the parameters.") }

    emit:
    finals = finals // [meta, particle set, half maps, mask job, post-process job] of the last level
    jobs = jobs // [meta, job]
}

// What a rung begins with.
def rung_of(row) {
    return [row[0], row[1][0]] + row[2..6]
}

// What the next one begins with: the levels that are left and the particles of this one; a map is given to the first only.
def after_rung(row) {
    return [row[0], row[1].drop(1), row[2], row[3], row[7], row[8], []]
}
